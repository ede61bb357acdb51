//! The filter by which the kernel picks the socket of a datagram.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use socket2::Socket;

/// Lets the `SO_REUSEPORT` group of `socket` pick by connection id: its first four bytes, as a big-endian number,
/// modulo `sockets`. A datagram that is too short reaches the first one.
pub(super) fn by_connection_id(socket: &Socket, sockets: usize) -> io::Result<()> {
    let count = u32::try_from(sockets).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut program = program(count);
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `program` and the instructions that it points to outlive the call, which copies them; the length is that
    // of the option's type.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Classic BPF over the UDP payload. In a long header (RFC 9000 §17.2) the id stands behind the version and its
/// length, in a short one (§17.3) behind the first byte.
fn program(count: u32) -> [libc::sock_filter; 7] {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(LOAD_BYTE, 0, 0, 0),
        step(JUMP_IF_SET, 0, 2, 0x80),
        step(LOAD_WORD, 0, 0, 6),
        step(JUMP, 0, 0, 1),
        step(LOAD_WORD, 0, 0, 1),
        step(MODULO, 0, 0, count),
        step(RETURN, 0, 0, 0),
    ]
}

const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const MODULO: u16 = (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_A) as u16;
