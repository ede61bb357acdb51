//! The benchmark's origin server: `xtask bench-backend`, HTTP/1.1 and HTTP/2 on one port and one epoll thread.
//!
//! Answers `/N` (over HTTP/2: `/h2/N`) with N bytes, whatever the method, after it has read the request's body
//! (HTTP/1.1: by its `content-length`). A connection that begins with the preface of HTTP/2 gets HTTP/2. It prints its port as
//! the first line of stdout and then serves until it is killed. Like the load generator it shares its core
//! with, it makes one receive and one send for all requests that came at once. Start from [`run`].

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use super::distant;
use super::h1::find;
use super::h2::PREFACE;
use super::h2::origin::Origin;
use crate::failure::{Context, Failure};
use crate::sys::{Epoll, Interest, raise_open_files};

struct Client {
    socket: TcpStream,
    speech: Speech,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
    interest: Interest,
}

/// What a client speaks.
enum Speech {
    /// Nothing yet.
    Unknown,
    H1(Requests),
    H2(Box<Origin>),
}

const LISTENER: u64 = u64::MAX;

/// Options of `xtask bench-backend`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Be far away, and close idle connections
    #[arg(long)]
    distant: bool,
    /// Listen on every address of this machine
    #[arg(long)]
    everywhere: bool,
}

/// Serves until the process is killed.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    raise_open_files();
    let address = if arguments.everywhere { "0.0.0.0:0" } else { "127.0.0.1:0" };
    let listener = TcpListener::bind(address).context("binding the backend")?;
    listener.set_nonblocking(true).context("nonblocking")?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr().context("local address")?.port()).context("stdout")?;
    stdout.flush().context("stdout")?;
    if arguments.distant {
        return distant::run(listener);
    }

    let mut epoll = Epoll::new().context("epoll")?;
    epoll.add(listener.as_raw_fd(), LISTENER, Interest::Read).context("epoll")?;
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut responses = Responses::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut tokens = Vec::new();
    loop {
        epoll.wait(&mut tokens, None).context("epoll")?;
        for token in tokens.drain(..) {
            if token == LISTENER {
                accept(&listener, &epoll, &mut clients)?;
                continue;
            }
            let Some(slot) = clients.get_mut(token as usize) else { continue };
            let Some(client) = slot else { continue };
            match client.on_event(&mut buffer, &mut responses) {
                Ok(interest) if interest != client.interest => {
                    epoll.modify(client.socket.as_raw_fd(), token, interest).context("epoll")?;
                    client.interest = interest;
                }
                Ok(_) => {}
                // Whoever broke the connection off does not matter here.
                Err(()) => *slot = None,
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, clients: &mut Vec<Option<Client>>) -> Result<(), Failure> {
    while let Ok((socket, _)) = listener.accept() {
        socket.set_nodelay(true).context("nodelay")?;
        socket.set_nonblocking(true).context("nonblocking")?;
        let index = clients.iter().position(Option::is_none).unwrap_or(clients.len());
        epoll.add(socket.as_raw_fd(), index as u64, Interest::Read).context("epoll")?;
        let client =
            Some(Client { socket, speech: Speech::Unknown, unsent: Vec::new(), interest: Interest::Read });
        if index == clients.len() {
            clients.push(client);
        } else {
            clients[index] = client;
        }
    }
    Ok(())
}

impl Client {
    /// Writes what is left over, or reads and answers; says what to wait for next.
    fn on_event(&mut self, buffer: &mut [u8], responses: &mut Responses) -> Result<Interest, ()> {
        if self.unsent.is_empty() {
            let received = match self.socket.read(buffer) {
                Ok(0) => return Err(()),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Interest::Read),
                Err(_) => return Err(()),
            };
            self.answer(&buffer[..received], responses)?;
        } else {
            match self.socket.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(()),
            }
        }
        Ok(if self.unsent.is_empty() { Interest::Read } else { Interest::Write })
    }

    fn answer(&mut self, bytes: &[u8], responses: &mut Responses) -> Result<(), ()> {
        if matches!(self.speech, Speech::Unknown) {
            // A proxy sends the preface in one piece.
            self.speech = if bytes.starts_with(PREFACE) {
                Speech::H2(Box::new(Origin::new(&mut self.unsent)))
            } else {
                Speech::H1(Requests::default())
            };
        }
        let (socket, unsent) = (&mut self.socket, &mut self.unsent);
        match &mut self.speech {
            Speech::Unknown => Ok(()),
            Speech::H1(requests) => requests.read(bytes, &mut |size| {
                let response = responses.of(size);
                let sent = if unsent.is_empty() { socket.write(&response).unwrap_or(0) } else { 0 };
                unsent.extend_from_slice(&response[sent..]);
            }),
            Speech::H2(origin) => {
                origin.read(bytes, unsent).map_err(drop)?;
                let sent = socket.write(unsent).unwrap_or(0);
                unsent.drain(..sent);
                Ok(())
            }
        }
    }
}

/// Whole responses by the size of their body, built once.
#[derive(Default)]
pub(super) struct Responses(Vec<(usize, Rc<[u8]>)>);

impl Responses {
    /// The response with `size` bytes of body.
    pub(super) fn of(&mut self, size: usize) -> Rc<[u8]> {
        if let Some((_, response)) = self.0.iter().find(|(known, _)| *known == size) {
            return Rc::clone(response);
        }
        let mut bytes =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n\r\n")
                .into_bytes();
        bytes.resize(bytes.len() + size, b'x');
        let response: Rc<[u8]> = bytes.into();
        self.0.push((size, Rc::clone(&response)));
        response
    }
}

/// Reads requests from bytes that may end anywhere.
#[derive(Default)]
pub(super) struct Requests {
    partial: Vec<u8>,
    /// Body bytes still to come, and the size that was asked for.
    body: Option<(u64, usize)>,
}

/// A proxy's head is a few hundred bytes; beyond this something is wrong.
const HEAD_LIMIT: usize = 64 * 1024;

impl Requests {
    /// Calls `answer` with the wanted size for each request that ends in `bytes`.
    pub(super) fn read(&mut self, bytes: &[u8], answer: &mut dyn FnMut(usize)) -> Result<(), ()> {
        let joined;
        let mut rest = bytes;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.partial);
            rest = &joined;
        }
        while !rest.is_empty() {
            if let Some((left, size)) = self.body {
                let taken = left.min(rest.len() as u64);
                rest = &rest[taken as usize..];
                self.body = (left > taken).then_some((left - taken, size));
                if self.body.is_none() {
                    answer(size);
                }
                continue;
            }
            let Some(end) = find(rest, b"\r\n\r\n") else {
                self.partial = rest.to_vec();
                return if rest.len() > HEAD_LIMIT { Err(()) } else { Ok(()) };
            };
            let (size, length) = read_head(&rest[..end]).ok_or(())?;
            rest = &rest[end + 4..];
            if length > 0 {
                self.body = Some((length, size));
            } else {
                answer(size);
            }
        }
        Ok(())
    }
}

/// (wanted size, content-length); `None` for a request that this server does not take.
fn read_head(head: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let target = lines.next()?.split(' ').nth(1)?;
    let size = target.strip_prefix('/')?.parse().ok()?;
    let mut length = 0;
    if !head.starts_with(b"GET ") {
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return None;
            }
        }
    }
    Some((size, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"GET /100 HTTP/1.1\r\nhost: a\r\n\r\nPOST /5 HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodyGET /7 HTTP/1.1\r\n\r\n";

    #[test]
    fn requests_split_anywhere() {
        for split in 0..STREAM.len() {
            let mut requests = Requests::default();
            let mut sizes = Vec::new();
            requests.read(&STREAM[..split], &mut |size| sizes.push(size)).unwrap();
            requests.read(&STREAM[split..], &mut |size| sizes.push(size)).unwrap();
            assert_eq!(sizes, [100, 5, 7], "split at {split}");
        }
    }

    #[test]
    fn chunked_requests_are_refused() {
        assert_eq!(read_head(b"POST /5 HTTP/1.1\r\nTransfer-Encoding: chunked"), None);
        assert_eq!(read_head(b"GET /x HTTP/1.1"), None);
    }

    #[test]
    fn a_response_has_the_size_that_was_asked_for() {
        let response = Responses::default().of(3);
        assert!(response.ends_with(b"content-length: 3\r\n\r\nxxx"));
    }
}
