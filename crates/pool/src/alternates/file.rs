//! A key-value store in a file, in Envoy's format: `<length>\n<key><length>\n<value>`, again and again
//! (`envoy.key_value.file_based`).
//!
//! [`Pairs`] is the contents without I/O. [`File`] reads them once, when it is opened, and writes them on a thread of
//! the runtime's own: no worker waits for a disk. A damaged file is read up to the damage, with one warning.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

/// Marks that a third token follows: when the pair expires, in seconds since 1970.
const EXPIRES: &[u8] = b"TTL";

/// Pairs, the one set last at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(Vec<Pair>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    key: String,
    value: String,
    expires: Option<u64>,
}

/// The contents end in the middle, or are of another format: what came before is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// No end of a length.
    #[error("no newline")]
    NoNewline,
    /// No number where a length should be.
    #[error("no length")]
    NoLength,
    /// The file ends inside a pair.
    #[error("insufficient contents")]
    Cut,
    /// A pair is not text.
    #[error("not UTF-8")]
    NotText,
}

impl Pairs {
    /// Parses a file's contents; what has expired at `now`, in seconds since 1970, is left out.
    pub fn parse(mut contents: &[u8], now: u64) -> (Self, Result<(), Damaged>) {
        let mut pairs = Self::default();
        while !contents.is_empty() {
            match pair(&mut contents) {
                Ok(pair) if pair.expires.is_some_and(|at| at <= now) => {}
                Ok(pair) => pairs.push(pair),
                Err(damaged) => return (pairs, Err(damaged)),
            }
        }
        (pairs, Ok(()))
    }

    /// A file's contents.
    pub fn contents(&self) -> Vec<u8> {
        let mut contents = Vec::new();
        for Pair { key, value, expires } in &self.0 {
            push_token(&mut contents, key);
            push_token(&mut contents, value);
            if let Some(expires) = expires {
                contents.extend_from_slice(EXPIRES);
                push_token(&mut contents, &expires.to_string());
            }
        }
        contents
    }

    /// All of them, the one set first in front.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|pair| (pair.key.as_str(), pair.value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets one, which is the last then. Of more than `most` the first goes.
    fn set(&mut self, key: &str, value: String, most: usize) {
        self.push(Pair { key: key.to_owned(), value, expires: None });
        if self.0.len() > most {
            self.0.remove(0);
        }
    }

    fn push(&mut self, pair: Pair) {
        self.remove(&pair.key);
        self.0.push(pair);
    }

    /// Whether there was one.
    fn remove(&mut self, key: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|pair| pair.key != key);
        self.0.len() < before
    }
}

fn pair(contents: &mut &[u8]) -> Result<Pair, Damaged> {
    let (key, value) = (token(contents)?, token(contents)?);
    let expires = match contents.strip_prefix(EXPIRES) {
        None => None,
        Some(rest) => {
            *contents = rest;
            Some(token(contents)?.parse().map_err(|_| Damaged::NoLength)?)
        }
    };
    Ok(Pair { key, value, expires })
}

fn token(contents: &mut &[u8]) -> Result<String, Damaged> {
    let newline = contents.iter().position(|byte| *byte == b'\n').ok_or(Damaged::NoNewline)?;
    let digits = std::str::from_utf8(&contents[..newline]).map_err(|_| Damaged::NoLength)?;
    let length: usize = digits.parse().map_err(|_| Damaged::NoLength)?;
    let rest = &contents[newline + 1..];
    let (token, rest) = rest.split_at_checked(length).ok_or(Damaged::Cut)?;
    *contents = rest;
    String::from_utf8(token.to_vec()).map_err(|_| Damaged::NotText)
}

fn push_token(contents: &mut Vec<u8>, token: &str) {
    contents.extend_from_slice(format!("{}\n{token}", token.len()).as_bytes());
}

/// Where a store is, and how it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The file; made at the first write.
    pub path: PathBuf,
    /// Changes are written so long after the first of them; zero: at once.
    pub flush_interval: Duration,
    /// Of more pairs the one set first goes. Bounds the file.
    pub max_entries: usize,
}

/// See the module.
pub struct File {
    options: FileOptions,
    pairs: RefCell<Pairs>,
    /// Changed since it was written.
    dirty: Cell<bool>,
    /// A task will write.
    scheduled: Cell<bool>,
    /// How many contents were handed to be written, and the latest that was: a late writer must not put old ones over
    /// them.
    handed: Cell<u64>,
    written: Arc<Mutex<u64>>,
}

impl File {
    /// Reads the file. One that is not there is empty; one that is damaged, or cannot be read, is so with a warning.
    pub fn open(options: FileOptions) -> Rc<Self> {
        let pairs = read(&options.path).unwrap_or_else(|(pairs, what)| {
            tracing::warn!(target: "config", path = %options.path.display(), "key value store: {what}");
            pairs
        });
        Rc::new(Self {
            options,
            pairs: RefCell::new(pairs),
            dirty: Cell::default(),
            scheduled: Cell::default(),
            handed: Cell::default(),
            written: Arc::default(),
        })
    }

    /// What is in it.
    pub fn pairs(&self) -> Pairs {
        self.pairs.borrow().clone()
    }

    /// Sets a pair. On a thread whose runtime takes local tasks.
    pub fn set(self: &Rc<Self>, key: &str, value: String) {
        self.pairs.borrow_mut().set(key, value, self.options.max_entries);
        self.changed();
    }

    /// Removes a pair.
    pub fn remove(self: &Rc<Self>, key: &str) {
        if self.pairs.borrow_mut().remove(key) {
            self.changed();
        }
    }

    fn changed(self: &Rc<Self>) {
        self.dirty.set(true);
        if !self.scheduled.replace(true) {
            tokio::task::spawn_local(write_back(Rc::downgrade(self), self.options.flush_interval));
        }
    }

    /// Takes what is to be written now.
    fn hand_over(&self) -> impl FnOnce() + Send + 'static {
        self.dirty.set(false);
        self.handed.set(self.handed.get() + 1);
        let (number, written) = (self.handed.get(), self.written.clone());
        let (path, contents) = (self.options.path.clone(), self.pairs.borrow().contents());
        move || {
            let mut latest = written.lock().unwrap_or_else(PoisonError::into_inner);
            if *latest < number {
                *latest = number;
                if let Err(error) = replace(&path, &contents) {
                    tracing::warn!(target: "config", path = %path.display(), "key value store: {error}");
                }
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // The end of the worker, or of the configuration: there may be no runtime to write later.
        if self.dirty.get() {
            self.hand_over()();
        }
    }
}

async fn write_back(file: Weak<File>, interval: Duration) {
    loop {
        if !interval.is_zero() {
            sleep(interval).await;
        }
        let Some(file) = file.upgrade() else { return };
        if !file.dirty.get() {
            file.scheduled.set(false);
            return;
        }
        let write = file.hand_over();
        drop(file);
        // Fails when the runtime ends, which runs what was handed over first.
        let _ = tokio::task::spawn_blocking(write).await;
    }
}

/// What is there, or what of it is good and what is wrong with it.
fn read(path: &Path) -> Result<Pairs, (Pairs, String)> {
    let contents = match std::fs::read(path) {
        Ok(contents) => contents,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pairs::default()),
        Err(error) => return Err((Pairs::default(), error.to_string())),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match Pairs::parse(&contents, now) {
        (pairs, Ok(())) => Ok(pairs),
        (pairs, Err(damaged)) => {
            let what =
                format!("the file is damaged ({damaged}): {} entries before that are used", pairs.len());
            Err((pairs, what))
        }
    }
}

/// A reader sees the old contents or the new ones, whenever the process ends.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    std::fs::write(&new, contents)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use tokio::task::LocalSet;

    use super::*;

    #[test]
    fn contents_are_envoys() {
        let contents = b"23\nhttps://localhost:5004725\nh3=\":50047\"; ma=87945|0|01\nk0\nTTL10\n40000000001\na1\nbTTL1\n7";
        let (pairs, whole) = Pairs::parse(contents, 100);
        assert_eq!(whole, Ok(()));
        let all: Vec<_> = pairs.iter().collect();
        assert_eq!(all, [("https://localhost:50047", "h3=\":50047\"; ma=87945|0|0"), ("k", "")]);
        let expired = contents.len() - "1\na1\nbTTL1\n7".len();
        assert_eq!(pairs.contents(), contents[..expired]);
    }

    #[test]
    fn what_comes_before_the_damage_is_good() {
        let damaged: [(&[u8], Damaged); 5] = [
            (b"garbage", Damaged::NoNewline),
            (b"garbage\n", Damaged::NoLength),
            (b"5\nabc", Damaged::Cut),
            (b"18446744073709551616\n", Damaged::NoLength),
            (b"1\n\xff1\na", Damaged::NotText),
        ];
        for (tail, what) in damaged {
            let contents = [b"1\na1\nb".as_slice(), tail].concat();
            let (pairs, whole) = Pairs::parse(&contents, 0);
            assert_eq!((pairs.len(), whole), (1, Err(what)), "{tail:?}");
        }
    }

    #[test]
    fn the_oldest_pair_goes_first() {
        let mut pairs = Pairs::default();
        for key in ["a", "b", "a", "c"] {
            pairs.set(key, key.into(), 2);
        }
        assert_eq!(pairs.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[tokio::test]
    async fn changes_are_written_and_read_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("store");
        let options = FileOptions { path: path.clone(), flush_interval: Duration::ZERO, max_entries: 10 };
        LocalSet::new()
            .run_until(async {
                let file = File::open(options.clone());
                assert!(file.pairs().is_empty());
                file.set("a", "1".into());
                while !path.exists() {
                    tokio::task::yield_now().await;
                }
                file.set("b", "2".into());
                // The end of the process.
                drop(file);
                assert_eq!(File::open(options.clone()).pairs().len(), 2);
                std::fs::write(&path, b"1\na1\n1garbage").unwrap();
                assert_eq!(File::open(options).pairs().iter().collect::<Vec<_>>(), [("a", "1")]);
            })
            .await;
    }
}
