//! ALTSVC: a connection that says where else origins are served, beside the `alt-svc` fields of its responses (RFC 7838
//! §4). Only the frame: what the value says, and whether it is believed, is its reader's matter.

use bytes::Bytes;

/// The frame's type, of HTTP/2; HTTP/3 numbers what both have alike, so it is taken on its control stream, too.
pub(crate) const KIND: u8 = 0xa;

/// Frames kept for who has not looked yet; of more the oldest goes. Stops a peer from filling memory.
const MOST_KEPT: usize = 8;

/// What one frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AltSvc {
    /// Whose alternatives they are, in ASCII (RFC 6454 §6.2); `None`: the origin that the connection was made for.
    pub origin: Option<Bytes>,
    /// As of an `alt-svc` field.
    pub value: Bytes,
}

impl AltSvc {
    /// A frame's payload; `None` if it is to be ignored. On stream 0 it must name its origin, on others it must not.
    pub(crate) fn parse(payload: &[u8], on_request: bool) -> Option<Self> {
        let (len, rest) = payload.split_first_chunk()?;
        let (origin, value) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        if origin.is_empty() != on_request {
            return None;
        }
        let origin = (!on_request).then(|| Bytes::copy_from_slice(origin));
        Some(Self { origin, value: Bytes::copy_from_slice(value) })
    }

    /// Notes one for who looks next.
    pub(crate) fn keep(self, kept: &mut Vec<Self>) {
        if kept.len() == MOST_KEPT {
            kept.remove(0);
        }
        kept.push(self);
    }

    /// The one that came first.
    pub(crate) fn take(kept: &mut Vec<Self>) -> Option<Self> {
        (!kept.is_empty()).then(|| kept.remove(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_named_where_the_stream_does_not_say_it() {
        let parse = |payload: &'static [u8], on_request| {
            AltSvc::parse(payload, on_request).map(|said| (said.origin, said.value))
        };
        let own = (None, Bytes::from_static(b"clear"));
        assert_eq!(parse(b"\0\0clear", true), Some(own));
        let named = (Some(Bytes::from_static(b"https://a")), Bytes::from_static(b"clear"));
        assert_eq!(parse(b"\0\x09https://aclear", false), Some(named));
        for (payload, on_request) in [
            (&b"\0\0clear"[..], false),
            (b"\0\x01aclear", true),
            (b"\0", true),
            (b"\0\x09a", false),
            (b"", false),
        ] {
            assert_eq!(AltSvc::parse(payload, on_request), None, "{payload:?}");
        }
    }

    #[test]
    fn few_are_kept() {
        let mut kept = Vec::new();
        for value in 0..100u8 {
            AltSvc { origin: None, value: Bytes::copy_from_slice(&[value]) }.keep(&mut kept);
        }
        assert_eq!(kept.len(), MOST_KEPT);
        assert_eq!(AltSvc::take(&mut kept).unwrap().value, [92].as_slice());
    }
}
