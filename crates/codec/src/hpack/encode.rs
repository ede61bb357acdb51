//! Fields to blocks (RFC 7541 §6): the static table for names and for fields that stand there whole, literals that
//! are not indexed for all others, raw strings.
//!
//! No dynamic table and no Huffman codes on purpose: a proxy's fields differ from request to request, and both
//! cost more time and memory, here and at the peer, than the bytes that they save on the way.

use bytes::BytesMut;
use http::{HeaderName, Method, StatusCode, header};

use super::table::static_index;
use super::{DEFAULT_TABLE_SIZE, integer};
use crate::fields::WriteFields;

/// Writes the blocks of one connection.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    empty_table: EmptyTable,
}

/// Whether the peer must be told that we use no table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EmptyTable {
    /// It has not asked for less than the default.
    #[default]
    Unsaid,
    /// It has, and MUST be told by the next block (RFC 7541 §4.2).
    Due,
    Said,
}

impl Encoder {
    /// For a new connection.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The peer's `SETTINGS_HEADER_TABLE_SIZE`, once its settings are acknowledged.
    pub(crate) fn set_peer_max(&mut self, size: u32) {
        if (size as usize) < DEFAULT_TABLE_SIZE && self.empty_table == EmptyTable::Unsaid {
            self.empty_table = EmptyTable::Due;
        }
    }
}

impl WriteFields for Encoder {
    const CRUMBS: bool = false;

    fn begin(&mut self, out: &mut BytesMut) {
        if self.empty_table == EmptyTable::Due {
            self.empty_table = EmptyTable::Said;
            out.extend_from_slice(&[SIZE_UPDATE_ZERO]);
        }
    }

    fn field(&self, out: &mut BytesMut, name: &HeaderName, value: &[u8], sensitive: bool) {
        let pattern = if sensitive { NEVER_INDEXED } else { 0 };
        let index = static_index(name);
        if index == 0 {
            let name = name.as_str().as_bytes();
            if name.len() < 0x7f {
                out.extend_from_slice(&[pattern, name.len() as u8]);
            } else {
                out.extend_from_slice(&[pattern]);
                integer::encode(out, 0, 7, name.len());
            }
            out.extend_from_slice(name);
            string(out, value);
        } else if *name == header::ACCEPT_ENCODING && value == b"gzip, deflate" && !sensitive {
            out.extend_from_slice(&[INDEXED | index]);
        } else {
            indexed_name(out, pattern, index, value);
        }
    }

    fn method(&self, out: &mut BytesMut, method: &Method) {
        match *method {
            Method::GET => out.extend_from_slice(&[INDEXED | 2]),
            Method::POST => out.extend_from_slice(&[INDEXED | 3]),
            _ => indexed_name(out, 0, 2, method.as_str().as_bytes()),
        }
    }

    fn scheme(&self, out: &mut BytesMut, scheme: &[u8]) {
        match scheme {
            b"http" => out.extend_from_slice(&[INDEXED | 6]),
            b"https" => out.extend_from_slice(&[INDEXED | 7]),
            _ => indexed_name(out, 0, 6, scheme),
        }
    }

    fn authority(&self, out: &mut BytesMut, authority: &[u8]) {
        indexed_name(out, 0, 1, authority);
    }

    fn path(&self, out: &mut BytesMut, path: &[u8]) {
        match path {
            b"/" => out.extend_from_slice(&[INDEXED | 4]),
            b"/index.html" => out.extend_from_slice(&[INDEXED | 5]),
            _ => indexed_name(out, 0, 4, path),
        }
    }

    fn status(&self, out: &mut BytesMut, status: StatusCode) {
        let index = match status.as_u16() {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => return indexed_name(out, 0, 8, status.as_str().as_bytes()),
        };
        out.extend_from_slice(&[INDEXED | index]);
    }

    fn protocol(&self, out: &mut BytesMut, protocol: &[u8]) {
        out.extend_from_slice(b"\x00\x09:protocol");
        string(out, protocol);
    }
}

/// A literal field whose name is in the static table.
fn indexed_name(out: &mut BytesMut, pattern: u8, index: u8, value: &[u8]) {
    // One write for the common case.
    match (index.checked_sub(0x0f), value.len()) {
        (None, len) if len < 0x7f => out.extend_from_slice(&[pattern | index, len as u8]),
        (Some(more), len) if len < 0x7f => out.extend_from_slice(&[pattern | 0x0f, more, len as u8]),
        (_, len) => {
            integer::encode(out, pattern, 4, usize::from(index));
            integer::encode(out, 0, 7, len);
        }
    }
    out.extend_from_slice(value);
}

fn string(out: &mut BytesMut, text: &[u8]) {
    integer::encode(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

const INDEXED: u8 = 0x80;
const NEVER_INDEXED: u8 = 0x10;
/// RFC 7541 §6.3, with size 0.
const SIZE_UPDATE_ZERO: u8 = 0x20;
