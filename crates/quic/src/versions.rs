//! Version negotiation for who is not to be served (RFC 9000 section 17.2.1).

/// The answer to the first packet of a connection that offers no version; `None` if the datagram is no long header.
pub(crate) fn none_for(datagram: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = datagram.split_first()?;
    let (_version, rest) = rest.split_at_checked(4)?;
    let (destination, rest) = id(rest)?;
    let (source, _) = id(rest)?;
    if first & LONG == 0 {
        return None;
    }
    let mut packet = vec![LONG | fastrand::u8(..)];
    packet.extend_from_slice(&[0; 4]);
    // Theirs swapped, so that the client knows that its packet arrived here.
    for id in [source, destination] {
        packet.push(id.len() as u8);
        packet.extend_from_slice(id);
    }
    packet.extend_from_slice(&RESERVED);
    Some(packet)
}

/// A connection id behind its length.
fn id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    // Section 17.2: at most 20 bytes.
    rest.split_at_checked(usize::from(*length)).filter(|(id, _)| id.len() <= 20)
}

const LONG: u8 = 0x80;

/// A version that exists to be ignored (section 15).
const RESERVED: [u8; 4] = [0x0a, 0x1a, 0x2a, 0x3a];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn ids_are_swapped_and_no_real_version_is_offered() {
        let packet = none_for(&[0xc3, 0, 0, 0, 1, 2, 7, 8, 3, 4, 5, 6, 99, 99]).unwrap();
        assert_eq!(packet[0] & 0x80, 0x80);
        assert_eq!(packet[1..], [0, 0, 0, 0, 3, 4, 5, 6, 2, 7, 8, 0x0a, 0x1a, 0x2a, 0x3a]);
    }

    #[test]
    fn what_is_no_long_header_gets_none() {
        for datagram in
            [&[][..], &[0xc3, 0, 0, 0, 1, 30], &[0x43, 0, 0, 0, 1, 0, 0], &[0xc3, 0, 0, 0, 1, 2, 7, 8, 3]]
        {
            assert_eq!(none_for(datagram), None);
        }
    }
}
