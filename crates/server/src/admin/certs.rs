//! `/certs`: the certificates in use, in the shape of `envoy.admin.v3.Certificates`.

use std::rc::Rc;
use std::time::SystemTime;

use serde_json::{Value, json};
use tidegate_tls::listing::Listed;

use super::Reply;
use super::query::Query;
use crate::certificates::{days_until, listings};
use crate::control::Control;
use crate::logging::line::rfc3339;

/// One entry for each TLS context.
pub(super) fn certs(control: &Rc<Control>, _: &Query) -> Reply {
    let listings = listings(&control.snapshot());
    let contexts: Vec<_> = listings
        .iter()
        .map(|listing| {
            let all = |certificates: &[Listed]| certificates.iter().map(certificate).collect::<Vec<_>>();
            json!({"ca_cert": all(&listing.ca), "cert_chain": all(&listing.chain)})
        })
        .collect();
    Reply::json(&json!({ "certificates": contexts }))
}

fn certificate(listed: &Listed) -> Value {
    let info = &listed.info;
    let names = |kind: &'static str, names: &[String]| {
        names.iter().map(|name| json!({ kind: name })).collect::<Vec<_>>()
    };
    let names =
        [names("dns", &info.dns_sans), names("uri", &info.uri_sans), names("ip_address", &info.ip_sans)];
    json!({
        "path": listed.path,
        "serial_number": info.serial,
        "subject_alt_names": names.concat(),
        // 64-bit numbers are strings in protobuf's JSON.
        "days_until_expiration": days_until(info.not_after).to_string(),
        "valid_from": timestamp(info.not_before),
        "expiration_time": timestamp(info.not_after),
    })
}

/// RFC 3339, as protobuf prints a `Timestamp` of whole seconds.
fn timestamp(time: SystemTime) -> String {
    rfc3339(time).replace(".000Z", "Z")
}
