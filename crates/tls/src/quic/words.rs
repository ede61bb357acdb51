//! What a client whose handshake fails is told beside the alert: Envoy's words, which are those of its libraries.

/// `alert` as the reason of CONNECTION_CLOSE. `answered`: the client has had an answer to its ClientHello.
pub(super) fn reason(alert: u8, answered: bool) -> String {
    let level = if answered { "ENCRYPTION_FORWARD_SECURE" } else { "ENCRYPTION_INITIAL" };
    // The library's own numbers of errors.
    let number = match alert {
        42..=46 => 195 + u32::from(alert) - 42,
        80 => 200,
        112 => 201,
        116 => 202,
        _ => 28,
    };
    let (words, stack) = match alert {
        40 => ("handshake failure", ""),
        42 => ("bad certificate", VERIFY),
        43 => ("unsupported certificate", VERIFY),
        44 => ("certificate revoked", VERIFY),
        45 => ("certificate expired", VERIFY),
        46 => ("certificate unknown", VERIFY),
        47 => ("illegal parameter", ""),
        48 => ("unknown CA", VERIFY),
        49 => ("access denied", ""),
        50 => ("decode error", ""),
        51 => ("decrypt error", ""),
        70 => ("protocol version", ""),
        80 => ("internal error", ""),
        112 => ("unrecognized name", ""),
        116 => (
            "certificate required",
            "[tls13_both.cc:348] error:100000c0:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE",
        ),
        120 => (
            "no application protocol",
            "[extensions.cc:1595] error:10000133:SSL routines:OPENSSL_internal:NO_APPLICATION_PROTOCOL",
        ),
        _ => ("unknown", ""),
    };
    let stack = if stack.is_empty() { String::new() } else { format!(". SSLErrorStack:{stack}") };
    format!("{number}:TLS handshake failure ({level}) {alert}: {words}{stack}")
}

const VERIFY: &str =
    "[handshake.cc:320] error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED";

#[cfg(test)]
mod tests {
    use super::*;

    /// As Envoy 1.40 says it.
    #[test]
    fn words_are_envoys() {
        assert_eq!(
            reason(120, false),
            "28:TLS handshake failure (ENCRYPTION_INITIAL) 120: no application protocol. \
             SSLErrorStack:[extensions.cc:1595] error:10000133:SSL routines:OPENSSL_internal:NO_APPLICATION_PROTOCOL"
        );
        assert_eq!(
            reason(116, true),
            "202:TLS handshake failure (ENCRYPTION_FORWARD_SECURE) 116: certificate required. \
             SSLErrorStack:[tls13_both.cc:348] error:100000c0:SSL \
             routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE"
        );
        assert!(
            reason(48, true)
                .starts_with("28:TLS handshake failure (ENCRYPTION_FORWARD_SECURE) 48: unknown CA. ")
        );
        assert!(reason(46, true).starts_with("199:"));
    }
}
