//! An upstream that speaks TLS, and notes how its connections began and ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use crate::{binary, wait};

/// A file of the tests' certificates: see `crates/testkit/certs/make.sh`.
pub fn certificate(name: &str) -> PathBuf {
    binary::root().join("crates/testkit/certs").join(name)
}

/// How the upstream answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// And keeps the connection.
    Keep,
    /// With `connection: close`, then `close_notify` and FIN.
    Close,
    /// With `connection: close`, then FIN alone.
    Truncate,
    /// Keeps the connection, and talks on after the proxy's FIN: what meets an RST if the socket is gone.
    TalkAfterEnd,
}

/// What the upstream saw of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The name asked for.
    pub server_name: Option<String>,
    /// The protocol agreed on.
    pub alpn: Option<String>,
    /// Whether a session was resumed.
    pub resumed: bool,
    /// How it ended, once it has.
    pub end: Option<TlsEnd>,
}

/// How the proxy ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsEnd {
    /// Whether `close_notify` came.
    pub close_notify: bool,
    /// Whether the socket was reset, be it after the FIN.
    pub reset: bool,
}

/// An HTTPS upstream on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct TlsOrigin {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl TlsOrigin {
    /// Shows the certificate `name`.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(name: &str, answer: Answer) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate(&format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(certificate(&format!("{name}.key"))).unwrap();
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let all = seen.clone();
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                let _ = socket.set_nodelay(true);
                let (config, all) = (config.clone(), all.clone());
                std::thread::spawn(move || serve(socket, config, answer, &all));
            }
        });
        Self { address, seen }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connections whose handshakes were completed, in that order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for the connection with that number to end.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn await_end(&self, number: usize) -> TlsEnd {
        wait::until_some("the end of a connection", || self.seen().get(number)?.end)
    }
}

fn serve(mut socket: TcpStream, config: Arc<ServerConfig>, answer: Answer, all: &Mutex<Vec<Seen>>) {
    let Ok(mut tls) = ServerConnection::new(config) else { return };
    while tls.is_handshaking() {
        if tls.complete_io(&mut socket).is_err() {
            return;
        }
    }
    let number = {
        let mut all = all.lock().unwrap();
        all.push(Seen {
            server_name: tls.server_name().map(str::to_owned),
            alpn: tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
            end: None,
        });
        all.len() - 1
    };
    let end = talk(&mut tls, &mut socket, answer);
    all.lock().unwrap()[number].end = Some(end);
}

fn talk(tls: &mut ServerConnection, socket: &mut TcpStream, answer: Answer) -> TlsEnd {
    let mut end = TlsEnd { close_notify: false, reset: false };
    let mut request = Vec::new();
    loop {
        // The handshake's last read may have brought the first request.
        let Ok(state) = tls.process_new_packets() else { return end };
        end.close_notify |= state.peer_has_closed();
        if state.plaintext_bytes_to_read() == 0 {
            match tls.read_tls(socket) {
                Ok(0) => break,
                Ok(_) => continue,
                Err(error) => {
                    end.reset = error.kind() == ErrorKind::ConnectionReset;
                    return end;
                }
            }
        }
        let mut chunk = vec![0; state.plaintext_bytes_to_read()];
        if tls.reader().read_exact(&mut chunk).is_err() {
            continue;
        }
        request.extend(chunk);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        request.clear();
        let head = match answer {
            Answer::Keep | Answer::TalkAfterEnd => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Answer::Close | Answer::Truncate => {
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
            }
        };
        let _ = tls.writer().write_all(head.as_bytes());
        if answer == Answer::Close {
            tls.send_close_notify();
        }
        let _ = tls.write_tls(socket);
        if matches!(answer, Answer::Close | Answer::Truncate) {
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }
    if answer == Answer::TalkAfterEnd {
        end.reset = !listens_on(tls, socket);
    }
    end
}

/// Whether what is sent after the other side's FIN meets no RST.
fn listens_on(tls: &mut ServerConnection, socket: &mut TcpStream) -> bool {
    let _ = tls.writer().write_all(b"one more thing");
    tls.send_close_notify();
    if tls.write_tls(socket).is_err() {
        return false;
    }
    std::thread::sleep(Duration::from_millis(50));
    // An RST that came makes this fail.
    socket.take_error().is_ok_and(|error| error.is_none()) && socket.write_all(b"").is_ok() && {
        let mut byte = [0];
        socket.read(&mut byte).is_ok()
    }
}
