//! A DNS server with scripted answers, on a port of its own over UDP and TCP.
//!
//! It runs on threads of its own, beside whatever runtime a test has. It knows just enough of the format (RFC 1035) to
//! answer questions for addresses, and to answer them wrongly.

// A test that cannot go on fails.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is said of a name.
#[derive(Clone, Debug)]
pub enum Say {
    /// These addresses, each in answers to its own kind of question, with a time to live in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    NoSuchName,
    /// SERVFAIL.
    Failure,
    /// REFUSED.
    Refused,
    /// Nothing at all.
    Silence,
    /// Over UDP that the answer does not fit; over TCP these addresses.
    OnlyOverTcp(Vec<IpAddr>),
    /// These addresses, in answer to another identifier.
    OtherId(Vec<IpAddr>),
    /// These addresses, in answer to a question that was not asked.
    OtherQuestion(Vec<IpAddr>),
    /// These addresses, from another port.
    OtherSource(Vec<IpAddr>),
    /// That the question is malformed if it carries EDNS; these addresses if it does not.
    WithoutEdns(Vec<IpAddr>),
    /// An alias, and these addresses of it.
    Alias(&'static str, Vec<IpAddr>),
    /// These HTTPS records, with a time to live in seconds.
    Services(Vec<ServiceRecord>, u32),
}

/// An HTTPS record (RFC 9460 section 2.2): its priority, its target ("": its own name), and its parameters by their
/// keys, as bytes.
pub type ServiceRecord = (u16, &'static str, Vec<(u16, Vec<u8>)>);

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    zone: Mutex<HashMap<String, Say>>,
    asked: Mutex<Vec<(String, u16)>>,
    over: AtomicBool,
}

/// The types of records that are known here.
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;

impl DnsServer {
    /// Starts one on 127.0.0.1. It knows no names.
    pub fn start() -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().expect("a bound socket has an address");
        let shared = Arc::<Shared>::default();
        let (of_udp, of_tcp) = (shared.clone(), shared.clone());
        std::thread::spawn(move || of_udp.serve_udp(&udp));
        std::thread::spawn(move || of_tcp.serve_tcp(&tcp));
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on says this of `name`.
    pub fn say(&self, name: &str, say: Say) {
        lock(&self.shared.zone).insert(name.to_ascii_lowercase(), say);
    }

    /// From now on says these addresses of `name`, to be kept for a minute.
    pub fn has(&self, name: &str, ips: &[&str]) {
        let ips = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
        self.say(name, Say::Addresses(ips, 60));
    }

    /// How often it was asked for `name`.
    pub fn asked(&self, name: &str) -> usize {
        lock(&self.shared.asked).iter().filter(|(asked, _)| asked == name).count()
    }

    /// The names and record types (1, 28, 65) that it was asked for.
    pub fn questions(&self) -> Vec<(String, u16)> {
        lock(&self.shared.asked).clone()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
        // Both threads look up from what they wait for.
        let _ = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(|socket| socket.send_to(&[], self.address));
        let _ = TcpStream::connect(self.address);
    }
}

/// Both on one port.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
        let address = udp.local_addr().expect("a bound socket has an address");
        if let Ok(tcp) = TcpListener::bind(address) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for UDP and TCP");
}

impl Shared {
    fn serve_udp(&self, socket: &UdpSocket) {
        let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            if self.over.load(Relaxed) {
                return;
            }
            let Some(question) = Question::read(&buffer[..length]) else { continue };
            let say = self.say(&question);
            let from = if matches!(say, Say::OtherSource(_)) { &other } else { socket };
            if let Some(answer) = question.answer(&say, false) {
                let _ = from.send_to(&answer, peer);
            }
        }
    }

    fn serve_tcp(&self, listener: &TcpListener) {
        while let Ok((mut socket, _)) = listener.accept() {
            if self.over.load(Relaxed) {
                return;
            }
            let mut length = [0; 2];
            if socket.read_exact(&mut length).is_err() {
                continue;
            }
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            if socket.read_exact(&mut message).is_err() {
                continue;
            }
            let Some(question) = Question::read(&message) else { continue };
            if let Some(answer) = question.answer(&self.say(&question), true) {
                let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
                framed.extend(answer);
                let _ = socket.write_all(&framed);
            }
        }
    }

    fn say(&self, question: &Question) -> Say {
        lock(&self.asked).push((question.name.clone(), question.kind));
        lock(&self.zone).get(&question.name).cloned().unwrap_or(Say::NoSuchName)
    }
}

/// What was asked.
struct Question {
    id: u16,
    name: String,
    kind: u16,
    /// As it stands in the message.
    bytes: Vec<u8>,
    has_edns: bool,
}

impl Question {
    fn read(message: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        let (mut at, mut labels) = (12, Vec::new());
        while let Some(length @ 1..) = message.get(at).map(|length| usize::from(*length)) {
            labels.push(String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?).to_ascii_lowercase());
            at += 1 + length;
        }
        at += 1;
        Some(Self {
            id: half(0)?,
            name: labels.join("."),
            kind: half(at)?,
            bytes: message.get(12..at + 4)?.to_vec(),
            has_edns: half(10)? > 0,
        })
    }

    fn answer(&self, say: &Say, over_tcp: bool) -> Option<Vec<u8>> {
        let records = |ips: &[IpAddr], ttl| self.message(self.id, 0, &self.records(&[0xc0, 12], ips, ttl));
        Some(match say {
            Say::Silence => return None,
            Say::NoSuchName => self.message(self.id, 3, &[]),
            Say::Failure => self.message(self.id, 2, &[]),
            Say::Refused => self.message(self.id, 5, &[]),
            Say::Addresses(ips, ttl) => records(ips, *ttl),
            Say::OtherSource(ips) => records(ips, 60),
            Say::OtherId(ips) => self.message(!self.id, 0, &self.records(&[0xc0, 12], ips, 60)),
            Say::OtherQuestion(ips) => {
                let mut other = Self { bytes: self.bytes.clone(), name: String::new(), ..*self };
                if let Some(letter) = other.bytes.get_mut(1) {
                    *letter = letter.wrapping_add(1);
                }
                other.message(self.id, 0, &other.records(&[0xc0, 12], ips, 60))
            }
            Say::OnlyOverTcp(_) if !over_tcp => self.message(self.id, 0x200, &[]),
            Say::OnlyOverTcp(ips) => records(ips, 60),
            Say::WithoutEdns(_) if self.has_edns => self.message(self.id, 1, &[]),
            Say::WithoutEdns(ips) => records(ips, 60),
            Say::Services(services, ttl) => {
                let all = services.iter().filter(|_| self.kind == HTTPS);
                let all: Vec<_> = all.map(|one| record(&[0xc0, 12], HTTPS, *ttl, &service(one))).collect();
                self.message(self.id, 0, &all)
            }
            Say::Alias(alias, ips) => {
                let alias = encoded(alias);
                let mut all = vec![record(&[0xc0, 12], CNAME, 5, &alias)];
                all.extend(self.records(&alias, ips, 60));
                // What nobody asked for.
                all.extend(self.records(&encoded("other.test"), &[Ipv4Addr::new(10, 9, 9, 9).into()], 60));
                self.message(self.id, 0, &all)
            }
        })
    }

    fn message(&self, id: u16, flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
        // A response, recursion desired and available.
        let header = [id, 0x8180 | flags, 1, records.len() as u16, 0, 0];
        let mut message: Vec<u8> = header.into_iter().flat_map(u16::to_be_bytes).collect();
        message.extend(&self.bytes);
        message.extend(records.concat());
        message
    }

    /// Those of `ips` that were asked for.
    fn records(&self, name: &[u8], ips: &[IpAddr], ttl: u32) -> Vec<Vec<u8>> {
        let one = |ip: &IpAddr| match (ip, self.kind) {
            (IpAddr::V4(ip), A) => Some(record(name, A, ttl, &ip.octets())),
            (IpAddr::V6(ip), AAAA) => Some(record(name, AAAA, ttl, &ip.octets())),
            _ => None,
        };
        ips.iter().filter_map(one).collect()
    }
}

fn record(name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = name.to_vec();
    record.extend([kind, 1].into_iter().flat_map(u16::to_be_bytes));
    record.extend(ttl.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

/// RFC 9460 §2.2.
fn service((priority, target, parameters): &ServiceRecord) -> Vec<u8> {
    let mut data = priority.to_be_bytes().to_vec();
    data.extend(if target.is_empty() { vec![0] } else { encoded(target) });
    for (key, value) in parameters {
        data.extend([*key, value.len() as u16].into_iter().flat_map(u16::to_be_bytes));
        data.extend(value);
    }
    data
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()));
    labels.chain([0]).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
