//! The sending half of [`TlsIo`].
//!
//! A record is encrypted whole and sent whole. When the socket takes only a part, all bytes but the last are
//! reported as written: the caller must come back with that byte, and is answered when the rest is sent. So
//! nothing that was accepted can be forgotten in here, although [`tidegate_net::Io`] has no flush.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::task::{Context, Poll, ready};

use super::TlsIo;
use super::session::{MAX_FRAGMENT, Task, Turn};

impl TlsIo {
    pub(super) fn poll_encrypt(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.info.is_none() {
            ready!(self.poll_handshake(cx))?;
        }
        if self.outgoing.urgent {
            ready!(self.poll_flush(cx))?;
        }
        let mut plain = Plain { bufs, skip: usize::from(self.owed) };
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let mut written = usize::from(std::mem::take(&mut self.owed));
        let mut gathered = GATHERED.take();
        for _ in 0..MAX_FLIGHT {
            let record = plain.next_record(&mut gathered);
            if record.is_empty() {
                break;
            }
            let length = record.len();
            if let Err(error) = self.encrypt(record) {
                GATHERED.set(gathered);
                return Poll::Ready(Err(error));
            }
            written += length;
        }
        GATHERED.set(gathered);
        if self.outgoing.is_empty() {
            return Poll::Ready(Ok(written));
        }
        self.outgoing.urgent = true;
        match self.poll_flush(cx) {
            Poll::Ready(done) => Poll::Ready(done.map(|()| written)),
            Poll::Pending => {
                self.owed = true;
                if written > 1 { Poll::Ready(Ok(written - 1)) } else { Poll::Pending }
            }
        }
    }

    /// Sends what waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let sent = ready!(self.io.poll_write(cx, &[IoSlice::new(self.outgoing.unsent())]))?;
            if sent == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Puts the farewell, if there is to be one, behind what waits to be sent.
    pub(super) fn say_goodbye(&mut self) {
        if self.says_goodbye() {
            while let Ok(turn) =
                self.session.turn(&mut self.received, &mut self.outgoing, Task::Farewell(&mut self.stash))
            {
                match turn {
                    Turn::Sent => {
                        self.settings.stats.counters().close_notify_sent().inc();
                        break;
                    }
                    Turn::Again | Turn::PeerClosed | Turn::Plaintext => {}
                    Turn::Blocked | Turn::Closed => break,
                }
            }
        } else if !self.outgoing.urgent {
            // Tickets alone are not worth a packet to a peer that is left.
            self.outgoing.clear();
        }
    }

    fn encrypt(&mut self, plain: &[u8]) -> io::Result<()> {
        loop {
            let task = Task::Send(plain, &mut self.stash);
            match self.session.turn(&mut self.received, &mut self.outgoing, task) {
                Ok(Turn::Sent) => return Ok(()),
                Ok(Turn::Again | Turn::PeerClosed | Turn::Plaintext) => {}
                Ok(Turn::Blocked | Turn::Closed) => return Err(ErrorKind::BrokenPipe.into()),
                Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
            }
        }
    }
}

/// What is left of the caller's buffers.
struct Plain<'a> {
    bufs: &'a [IoSlice<'a>],
    /// Bytes of the first buffer that are done.
    skip: usize,
}

impl<'a> Plain<'a> {
    /// The next record's plaintext: as it lies in the buffer, if that fills a record or is the last;
    /// otherwise several are gathered, so that a head and its body make one record.
    fn next_record<'g>(&mut self, gathered: &'g mut Vec<u8>) -> &'g [u8]
    where
        'a: 'g,
    {
        gathered.clear();
        while let [first, others @ ..] = self.bufs {
            let rest: &'a [u8] = first.get(self.skip..).unwrap_or_default();
            let room = MAX_FRAGMENT - gathered.len();
            let taken = rest.len().min(room);
            let now = rest.get(..taken).unwrap_or_default();
            if taken == rest.len() {
                self.bufs = others;
                self.skip = 0;
            } else {
                self.skip += taken;
            }
            if gathered.is_empty() && (taken == MAX_FRAGMENT || self.bufs.is_empty()) {
                return now;
            }
            gathered.extend_from_slice(now);
            if gathered.len() == MAX_FRAGMENT {
                break;
            }
        }
        gathered
    }
}

/// Records encrypted before they are sent: bounds what a slow reader makes us hold.
const MAX_FLIGHT: usize = 2;

thread_local! {
    /// Where small buffers become one record.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
