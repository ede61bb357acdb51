//! What `/config_dump` does not show: the fields that Envoy's API marks as sensitive.

use serde_json::Value;
use tidegate_types::json::lower_camel;

/// Replaces the content of private keys, session ticket keys and generic secrets, file names included, as Envoy does.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                if SENSITIVE.iter().any(|field| key == field || *key == lower_camel(field)) {
                    blank(key, member);
                } else {
                    redact(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Every text within.
fn blank(key: &str, value: &mut Value) {
    match value {
        // "[redacted]" in base64, which the field's type asks for.
        Value::String(text) if matches!(key, "inline_bytes" | "inlineBytes") => {
            "W3JlZGFjdGVkXQ==".clone_into(text);
        }
        Value::String(text) => "[redacted]".clone_into(text),
        Value::Object(members) => members.iter_mut().for_each(|(key, member)| blank(key, member)),
        Value::Array(items) => items.iter_mut().for_each(|item| blank(key, item)),
        _ => {}
    }
}

const SENSITIVE: [&str; 5] = ["private_key", "session_ticket_keys", "password", "pkcs12", "generic_secret"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_hidden_and_certificates_are_not() {
        let mut value = json!({"tlsCertificates": [{
            "certificate_chain": {"inline_string": "c"},
            "private_key": {"inline_string": "k"},
        }], "sessionTicketKeys": {"keys": [{"inlineBytes": "a2V5"}, {"filename": "f"}]}});
        redact(&mut value);
        assert_eq!(
            value,
            json!({"tlsCertificates": [{
                "certificate_chain": {"inline_string": "c"},
                "private_key": {"inline_string": "[redacted]"},
            }], "sessionTicketKeys": {"keys": [{"inlineBytes": "W3JlZGFjdGVkXQ=="}, {"filename": "[redacted]"}]}})
        );
    }
}
