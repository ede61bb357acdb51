//! The bytes under a connection: TCP, or TLS over it, read by one thread and written by any.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::Connection;
use socket2::Socket;

use crate::wait::PATIENCE;

/// A connection's two directions.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Gone once this side has closed.
    socket: Mutex<Option<Arc<Socket>>>,
    tls: Option<Mutex<Connection>>,
}

impl Pipe {
    /// Over a connected socket; the handshake comes first.
    ///
    /// # Errors
    /// When the handshake fails.
    pub(super) fn new(socket: &Arc<Socket>, tls: Option<Connection>) -> io::Result<Self> {
        socket.set_write_timeout(Some(PATIENCE))?;
        let tls = tls.map(|mut tls| -> io::Result<_> {
            socket.set_read_timeout(Some(PATIENCE))?;
            while tls.is_handshaking() {
                tls.complete_io(&mut &**socket)?;
            }
            socket.set_read_timeout(None)?;
            Ok(Mutex::new(tls))
        });
        Ok(Self { socket: Mutex::new(Some(socket.clone())), tls: tls.transpose()? })
    }

    /// The protocol that TLS agreed on.
    pub(super) fn alpn(&self) -> Option<String> {
        let tls = self.tls.as_ref()?.lock().unwrap();
        tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// Writes everything; what the other side no longer takes is lost, as on any connection.
    pub(super) fn write(&self, bytes: &[u8]) {
        // Held while writing: frames of two threads must not mix.
        let held = self.socket.lock().unwrap();
        let Some(socket) = held.as_ref() else { return };
        match &self.tls {
            None => drop((&**socket).write_all(bytes)),
            Some(tls) => {
                let mut tls = tls.lock().unwrap();
                let _ = tls.writer().write_all(bytes);
                while tls.wants_write() && tls.write_tls(&mut &**socket).is_ok() {}
            }
        }
    }

    /// Ends the sending (FIN, after `close_notify` under TLS).
    pub(super) fn finish(&self) {
        let held = self.socket.lock().unwrap();
        let Some(socket) = held.as_ref() else { return };
        if let Some(tls) = &self.tls {
            let mut tls = tls.lock().unwrap();
            tls.send_close_notify();
            while tls.wants_write() && tls.write_tls(&mut &**socket).is_ok() {}
        }
        let _ = socket.shutdown(Shutdown::Write);
    }

    /// Gives up this side's hold of the socket: with the reader gone too, it is closed, by RST if `abort`.
    pub(super) fn close(&self, abort: bool) {
        let Some(socket) = self.socket.lock().unwrap().take() else { return };
        if abort {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        // Wakes the reader, which holds it too; nothing of this is on the wire.
        let _ = socket.shutdown(Shutdown::Read);
    }

    /// What the bytes that were read from the socket say. Empty when TLS made nothing of them yet.
    ///
    /// # Errors
    /// When TLS is broken.
    pub(super) fn plain(&self, raw: &[u8]) -> io::Result<Vec<u8>> {
        let Some(tls) = &self.tls else { return Ok(raw.to_vec()) };
        let mut tls = tls.lock().unwrap();
        let (mut rest, mut plain) = (raw, Vec::new());
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut plain[start..])?;
        }
        Ok(plain)
    }

    /// What came along with the handshake.
    pub(super) fn early(&self) -> Vec<u8> {
        let Some(tls) = &self.tls else { return Vec::new() };
        let mut tls = tls.lock().unwrap();
        let Ok(state) = tls.process_new_packets() else { return Vec::new() };
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        let _ = tls.reader().read_exact(&mut plain);
        plain
    }
}

/// A TCP socket without delay.
pub(super) fn shared(stream: TcpStream) -> Arc<Socket> {
    let _ = stream.set_nodelay(true);
    Arc::new(stream.into())
}
