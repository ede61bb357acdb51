//! Word to the processor's caches of what will be needed.

/// Asks for the memory that `value` itself takes, without waiting for it. For what lies still while hundreds of others
/// run, ahead of a system call in whose time it arrives.
#[inline]
pub fn prefetch<T>(value: &T) {
    prefetch_from(value, size_of::<T>());
}

/// The same for so many bytes from `first` on: it is the first of several that lie in a row.
#[inline]
#[allow(unsafe_code)]
pub fn prefetch_from<T>(first: &T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        let start = std::ptr::from_ref(first).cast::<i8>();
        for offset in (0..bytes).step_by(LINE) {
            // SAFETY: a hint, which reads nothing and cannot fault, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (first, bytes);
}

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;
