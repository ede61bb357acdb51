//! Who of a connection's streams was woken: a bit each, in the connection's one task.
//!
//! A wake-up from outside sets the bit and wakes the task; one during the task's own turn only sets the bit,
//! which the turn's end looks at. So what the codec and the streams tell each other within a turn costs no
//! second poll of the task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};

use atomic_waker::AtomicWaker;

/// The bits of one connection.
pub(super) struct Wakes {
    task: Arc<Task>,
    connection: (Arc<Chunk>, Waker),
    chunks: Vec<Arc<Chunk>>,
}

#[derive(Default)]
struct Task {
    waker: AtomicWaker,
    in_turn: AtomicBool,
}

struct Chunk {
    woken: AtomicU64,
    task: Arc<Task>,
}

impl Chunk {
    fn new(task: &Arc<Task>) -> Arc<Self> {
        Arc::new(Self { woken: AtomicU64::new(0), task: task.clone() })
    }

    fn waker(self: &Arc<Self>, bit: u32) -> Waker {
        Waker::from(Arc::new(BitWaker { chunk: self.clone(), mask: 1 << bit }))
    }

    fn set(&self, mask: u64) {
        // Where another bit is set the task has been woken, or its turn is about to look.
        if self.woken.fetch_or(mask, SeqCst) == 0 && !self.task.in_turn.load(SeqCst) {
            self.task.waker.wake();
        }
    }
}

struct BitWaker {
    chunk: Arc<Chunk>,
    mask: u64,
}

impl Wake for BitWaker {
    fn wake(self: Arc<Self>) {
        self.chunk.set(self.mask);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.chunk.set(self.mask);
    }
}

impl Wakes {
    /// Nobody is woken but the connection itself.
    pub(super) fn new() -> Self {
        let task = Arc::new(Task::default());
        let chunk = Chunk::new(&task);
        chunk.woken.store(1, SeqCst);
        let waker = chunk.waker(0);
        Self { task, connection: (chunk, waker), chunks: Vec::new() }
    }

    /// The task's turn begins.
    pub(super) fn begin_turn(&self, cx: &Context<'_>) {
        self.task.in_turn.store(true, SeqCst);
        self.task.waker.register(cx.waker());
    }

    /// The task's turn ends: it is woken again if anybody was in the meantime.
    pub(super) fn end_turn(&self) {
        self.task.in_turn.store(false, SeqCst);
        if self.is_any_woken() {
            self.task.waker.wake();
        }
    }

    /// Whether anybody is woken.
    pub(super) fn is_any_woken(&self) -> bool {
        let all = self.chunks.iter().chain([&self.connection.0]);
        all.into_iter().any(|chunk| chunk.woken.load(SeqCst) != 0)
    }

    /// The waker of what the connection itself waits for.
    pub(super) fn connection_waker(&self) -> &Waker {
        &self.connection.1
    }

    /// Whether the connection was woken since the last call.
    pub(super) fn take_connection(&self) -> bool {
        self.connection.0.woken.swap(0, SeqCst) != 0
    }

    /// The waker of a stream.
    pub(super) fn waker(&mut self, index: usize) -> Waker {
        while self.chunks.len() <= index / BITS {
            self.chunks.push(Chunk::new(&self.task));
        }
        self.chunks[index / BITS].waker((index % BITS) as u32)
    }

    /// Wakes a stream from within the turn.
    pub(super) fn wake(&self, index: usize) {
        if let Some(chunk) = self.chunks.get(index / BITS) {
            chunk.set(1 << (index % BITS));
        }
    }

    /// Chunks of streams; there are [`BITS`] in each.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The streams of a chunk that were woken since the last call, as bits.
    pub(super) fn take_chunk(&self, chunk: usize) -> u64 {
        self.chunks.get(chunk).map_or(0, |chunk| chunk.woken.swap(0, SeqCst))
    }

    /// No stream is left: an idle connection keeps no place for one.
    pub(super) fn release(&mut self) {
        self.chunks = Vec::new();
    }
}

/// Streams of a chunk.
pub(super) const BITS: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn the_task_is_woken_once_and_not_within_its_turn() {
        let count = Arc::new(Count::default());
        let task = Waker::from(count.clone());
        let cx = Context::from_waker(&task);
        let mut wakes = Wakes::new();
        let (near, far) = (wakes.waker(3), wakes.waker(70));
        wakes.begin_turn(&cx);
        assert!(wakes.take_connection() && !wakes.take_connection());
        near.wake_by_ref();
        assert_eq!((wakes.take_chunk(0), wakes.take_chunk(1)), (1 << 3, 0));
        wakes.end_turn();
        assert_eq!(count.0.load(SeqCst), 0);
        far.wake_by_ref();
        far.wake_by_ref();
        near.wake_by_ref();
        assert_eq!(count.0.load(SeqCst), 1);
        wakes.begin_turn(&cx);
        assert_eq!((wakes.take_chunk(0), wakes.take_chunk(1)), (1 << 3, 1 << 6));
        wakes.connection_waker().wake_by_ref();
        wakes.end_turn();
        assert_eq!(count.0.load(SeqCst), 2);
    }
}
