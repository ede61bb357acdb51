//! The integrity tag of Retry packets (RFC 9001 section 5.8).

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// RFC 9001 section 5.8.
const KEY: [u8; 16] =
    [0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e];
/// RFC 9001 section 5.8.
const NONCE: [u8; 12] = [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];
const LENGTH: usize = 16;

/// The tag of a packet without it, for a client that sent its Initial to this id.
pub fn tag(orig_dst_cid: &[u8], packet: &[u8]) -> [u8; LENGTH] {
    let mut pseudo = Vec::with_capacity(1 + orig_dst_cid.len() + packet.len());
    pseudo.push(u8::try_from(orig_dst_cid.len()).unwrap_or_default());
    pseudo.extend_from_slice(orig_dst_cid);
    pseudo.extend_from_slice(packet);
    let mut tag = [0; LENGTH];
    let Ok(key) = UnboundKey::new(&AES_128_GCM, &KEY).map(LessSafeKey::new) else { return tag };
    let nonce = Nonce::assume_unique_for_key(NONCE);
    // A tag of zeros is no valid one: clients drop the packet.
    if let Ok(sealed) = key.seal_in_place_separate_tag(nonce, Aad::from(pseudo), &mut []) {
        tag.copy_from_slice(sealed.as_ref());
    }
    tag
}

/// Whether a Retry packet, header and payload, ends in its tag.
pub(super) fn is_valid(orig_dst_cid: &[u8], header: &[u8], payload: &[u8]) -> bool {
    let Some((body, claimed)) = payload.split_last_chunk::<LENGTH>() else { return false };
    tag(orig_dst_cid, &[header, body].concat()) == *claimed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9001 appendix A.4.
    #[test]
    fn the_rfc_s_packet_is_valid() {
        let id = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
        let packet = [
            0xff, 0x00, 0x00, 0x00, 0x01, 0x00, 0x08, 0xf0, 0x67, 0xa5, 0x50, 0x2a, 0x42, 0x62, 0xb5, 0x74,
            0x6f, 0x6b, 0x65, 0x6e, 0x04, 0xa2, 0x65, 0xba, 0x2e, 0xff, 0x4d, 0x82, 0x90, 0x58, 0xfb, 0x3f,
            0x0f, 0x24, 0x96, 0xba,
        ];
        let (header, payload) = packet.split_at(15);
        assert!(is_valid(&id, header, payload));
        assert!(!is_valid(&id[1..], header, payload));
        assert!(!is_valid(&id, header, &payload[..20]));
        assert!(!is_valid(&id, header, &payload[..7]));
    }
}
