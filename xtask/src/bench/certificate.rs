//! The certificate of every proxy that is measured with TLS: self-signed, ECDSA P-256, for `bench.test`, good
//! for a hundred years. Made by
//! `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=bench.test
//! -addext subjectAltName=DNS:bench.test -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem`; it protects nothing.

use std::fs;
use std::path::Path;

use crate::failure::{Context, Failure};

/// The certificate, PEM.
pub(super) const CERTIFICATE: &str = include_str!("tls/cert.pem");
const KEY: &str = include_str!("tls/key.pem");

/// The name in it.
pub(super) const NAME: &str = "bench.test";

/// Writes `cert.pem`, `key.pem` and, as HAProxy wants it, `both.pem`.
pub(super) fn write(folder: &Path) -> Result<(), Failure> {
    let both = format!("{CERTIFICATE}{KEY}");
    for (name, text) in [("cert.pem", CERTIFICATE), ("key.pem", KEY), ("both.pem", &both)] {
        let file = folder.join(name);
        fs::write(&file, text).context(file.display())?;
    }
    Ok(())
}
