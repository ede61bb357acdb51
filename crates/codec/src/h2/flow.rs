//! How much the peer may still send (RFC 9113 §6.9): by pull, since a part's window is given back when somebody
//! has taken the part.

/// The window of a stream or a connection that we receive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecvWindow {
    /// Bytes that the peer may send.
    left: u32,
    /// Bytes that were taken and not yet given back.
    owed: u32,
    /// The whole.
    size: u32,
}

/// The peer sent more than it might.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded;

impl RecvWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self { left: size, owed: 0, size }
    }

    /// Bytes came.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<(), Exceeded> {
        self.left = u32::try_from(len).ok().and_then(|len| self.left.checked_sub(len)).ok_or(Exceeded)?;
        Ok(())
    }

    /// Bytes were used: the increment to send now, if any. Half a window at a time: neither a frame for each
    /// part, nor a sender that waits.
    #[inline]
    pub(crate) fn give(&mut self, len: usize) -> Option<u32> {
        self.owed += len as u32;
        if self.owed == 0 || self.owed < self.size / 2 {
            return None;
        }
        let increment = std::mem::take(&mut self.owed);
        self.left += increment;
        Some(increment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_come_back_by_halves() {
        let mut window = RecvWindow::new(100);
        assert_eq!(window.take(100), Ok(()));
        assert_eq!(window.take(1), Err(Exceeded));
        assert_eq!(window.give(49), None);
        assert_eq!(window.give(0), None);
        assert_eq!(window.give(1), Some(50));
        assert_eq!((window.take(50), window.take(1)), (Ok(()), Err(Exceeded)));
    }

    #[test]
    fn a_window_of_one_byte_works() {
        let mut window = RecvWindow::new(1);
        assert_eq!((window.take(1), window.give(1)), (Ok(()), Some(1)));
        assert_eq!((window.take(0), window.give(0)), (Ok(()), None));
    }
}
