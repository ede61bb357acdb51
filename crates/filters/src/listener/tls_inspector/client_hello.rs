//! The part of a TLS ClientHello that is sent in the clear and of use before the handshake (RFC 8446 §4.1.2,
//! RFC 6066 §3, RFC 7301 §3.1). Nothing is verified that the handshake verifies again.

use std::borrow::Cow;

/// What a client says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClientHello {
    /// The name that it asks for, in lower case.
    pub(super) server_name: Option<String>,
    /// The protocols that it offers, in its order.
    pub(super) protocols: Vec<Vec<u8>>,
}

/// Why bytes are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No TLS handshake record.
    NotTls,
    /// A handshake message that announces more than any ClientHello has.
    TooLong,
    /// Another handshake message.
    NotAHello,
    /// It breaks its own lengths.
    Malformed,
}

impl ClientHello {
    /// Reads the beginning of a connection; `None`: there is not enough of it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Fault> {
        let Some(message) = message(bytes)? else { return Ok(None) };
        read(&message).map(Some).ok_or(Fault::Malformed)
    }
}

/// The body of the first handshake message, put together from its records.
fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Fault> {
    let mut rest = bytes;
    let mut joined: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        // Envoy judges the first five bytes together, and not before.
        let Some((header, behind)) = rest.split_first_chunk::<5>() else { return Ok(None) };
        let [kind, major, _, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || major != 3 || length == 0 || length > MOST_IN_RECORD {
            return Err(Fault::NotTls);
        }
        let available = &behind[..length.min(behind.len())];
        if joined.is_empty() {
            joined = Cow::Borrowed(available);
        } else {
            joined.to_mut().extend_from_slice(available);
        }
        if let Some([kind, a, b, c]) = joined.first_chunk::<4>() {
            let announced = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if *kind != CLIENT_HELLO {
                return Err(if announced > MOST_IN_RECORD { Fault::TooLong } else { Fault::NotAHello });
            }
            if announced > MOST_IN_MESSAGE {
                return Err(Fault::TooLong);
            }
            if joined.len() >= 4 + announced {
                return Ok(Some(match joined {
                    Cow::Borrowed(all) => Cow::Borrowed(&all[4..4 + announced]),
                    Cow::Owned(all) => Cow::Owned(all[4..4 + announced].to_vec()),
                }));
            }
        }
        if behind.len() < length {
            return Ok(None);
        }
        rest = &behind[length..];
    }
}

fn read(message: &[u8]) -> Option<ClientHello> {
    let mut body = Input(message);
    body.take(2 + 32)?; // legacy_version, random
    body.vector8()?; // legacy_session_id
    let suites = body.vector16()?;
    let compressions = body.vector8()?;
    if suites.0.is_empty() || !suites.0.len().is_multiple_of(2) || compressions.0.is_empty() {
        return None;
    }
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = body.vector16()?;
    if !body.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        match kind {
            SERVER_NAME => hello.server_name = server_name(data)?,
            ALPN => hello.protocols = protocols(data)?,
            _ => {}
        }
    }
    Some(hello)
}

/// The host name of the list; other kinds of names were never defined.
fn server_name(mut data: Input<'_>) -> Option<Option<String>> {
    let mut list = data.vector16()?;
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vector16()?;
        if kind == HOST_NAME {
            // RFC 6066 §3: ASCII, no trailing dot. What is no text cannot be matched by any configuration.
            let text = std::str::from_utf8(name.0).ok().filter(|name| !name.contains('\0'))?;
            return Some(Some(text.to_ascii_lowercase()).filter(|name| !name.is_empty()));
        }
    }
    Some(None)
}

fn protocols(mut data: Input<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = data.vector16()?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let name = list.vector8()?;
        if name.0.is_empty() {
            return None;
        }
        protocols.push(name.0.to_vec());
    }
    Some(protocols)
}

/// What is left to read; every step says whether there was enough.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<Input<'a>> {
        let length = usize::from(self.u8()?);
        self.take(length).map(Input)
    }

    fn vector16(&mut self) -> Option<Input<'a>> {
        let length = usize::from(self.u16()?);
        self.take(length).map(Input)
    }
}

/// RFC 8446 §5.1.
const HANDSHAKE: u8 = 22;
const MOST_IN_RECORD: usize = 1 << 14;
/// RFC 8446 §4.
const CLIENT_HELLO: u8 = 1;
/// More than what `max_client_hello_size` can ever let pass, so that a nonsense length is known for what it is.
const MOST_IN_MESSAGE: usize = 1 << 17;
/// RFC 6066 §1.1 and §3, RFC 7301 §3.1.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const ALPN: u16 = 16;
