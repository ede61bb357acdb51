//! `HealthCheck.Payload`: bytes to send, or to look for.

use tidegate_types::json::decode_base64;

use crate::reader::{Message, Reader};

pub(super) struct Payload(pub(super) Vec<u8>);

impl Message for Payload {
    const NAME: &'static str = "envoy.config.core.v3.HealthCheck.Payload";

    fn read(r: &Reader<'_>) -> Self {
        let text = r.string("text").convert(|text| match decode_hex(&text) {
            Some(bytes) if !bytes.is_empty() => Ok(bytes),
            _ => Err(format!("`{text}` is not hexadecimal: two digits for each byte")),
        });
        let binary =
            r.string("binary").convert(|text| decode_base64(&text).ok_or_else(|| "not base64".to_owned()));
        r.exactly_one(&["text", "binary"]);
        Self(text.optional().or(binary.optional()).unwrap_or_default())
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<_> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    let whole = pairs.remainder().is_empty();
    whole.then(|| pairs.map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}
