//! Field sections that use the peer's dynamic table (RFC 9204 §2.2): those that wait for its encoder stream, and what we
//! say on our decoder stream. Nothing is held for a peer that uses no table.

use bytes::Bytes;
use tidegate_quic::{Dir, StreamId, WriteError};

use super::codes::{self, Fault, Handled};
use super::conn::Core;
use super::frames::stream_type;
use super::heads::Section;
use super::streams::Key;
use crate::qpack::{BLOCKED_STREAMS, DynamicTable, required_insertions};

/// What a connection keeps for them.
#[derive(Default)]
pub(crate) struct Sections(Option<Box<Used>>);

/// A table that is used.
#[derive(Default)]
struct Used {
    table: DynamicTable,
    /// Sections whose entries have not come, at most one a stream.
    waiting: Vec<Waiting>,
    /// Our decoder stream.
    stream: Option<StreamId>,
}

struct Waiting {
    stream: StreamId,
    place: Section,
    section: Bytes,
    /// Insertions that it needs.
    required: u64,
}

impl Sections {
    /// The peer's table, if it has one.
    pub(crate) fn table(&self) -> Option<&DynamicTable> {
        self.0.as_ref().map(|used| &used.table)
    }

    /// Whether a section of the stream waits, so that nothing behind it is read.
    #[inline]
    pub(crate) fn holds(&self, stream: Option<StreamId>) -> bool {
        let Some(used) = &self.0 else { return false };
        stream.is_some_and(|id| used.waiting.iter().any(|waiting| waiting.stream == id))
    }

    /// A section was read that needed so many insertions. Whether there is a table of which something may be said.
    #[inline]
    pub(crate) fn acknowledge(&mut self, stream: StreamId, required: u64) -> bool {
        let Some(used) = &mut self.0 else { return false };
        used.table.acknowledge(stream.into(), required);
        true
    }

    /// Nothing more is read of a stream.
    #[inline]
    pub(crate) fn forget(&mut self, stream: StreamId) {
        if let Some(used) = &mut self.0 {
            used.waiting.retain(|waiting| waiting.stream != stream);
            used.table.cancel(stream.into());
        }
    }

    pub(crate) fn is_ours(&self, id: StreamId) -> bool {
        self.0.as_ref().is_some_and(|used| used.stream == Some(id))
    }

    /// Gives back room that is not needed.
    pub(crate) fn shrink(&mut self) {
        if let Some(used) = &mut self.0 {
            used.table.shrink();
            used.waiting.shrink_to_fit();
        }
    }
}

impl Core {
    /// Whether a section is put aside until its entries have come.
    pub(crate) fn waits_for_entries(&mut self, key: Key, place: Section, section: &Bytes) -> Handled<bool> {
        // The common case: it needs none.
        if section.first() == Some(&0) {
            return Ok(false);
        }
        let inserted = self.sections.table().map_or(0, DynamicTable::inserted);
        let Some(required) = required_insertions(section, inserted).filter(|required| *required > inserted)
        else {
            return Ok(false);
        };
        let Some(stream) = self.streams.get(key).and_then(|stream| stream.id) else { return Ok(false) };
        let used = self.sections.0.get_or_insert_default();
        if used.waiting.len() >= BLOCKED_STREAMS {
            // RFC 9204 §2.1.2.
            return Err(Fault::section("Limit on number of blocked streams exceeded."));
        }
        used.waiting.push(Waiting { stream, place, section: section.clone(), required });
        Ok(true)
    }

    /// Bytes of the peer's encoder stream came: what waited for them is read.
    pub(crate) fn handle_instructions(&mut self, bytes: &[u8]) -> Handled {
        let used = self.sections.0.get_or_insert_default();
        used.table.handle(bytes).map_err(|refused| codes::encoder_stream(refused.number, refused.text))?;
        while let Some(used) = &mut self.sections.0 {
            let inserted = used.table.inserted();
            let Some(at) = used.waiting.iter().position(|waiting| waiting.required <= inserted) else {
                break;
            };
            let Waiting { stream, place, section, .. } = used.waiting.remove(at);
            let Some(key) = self.streams.find(stream) else { continue };
            if self.streams.get(key).is_none_or(|stream| stream.failed.is_some()) {
                continue;
            }
            match place {
                Section::Head => self.handle_head(key, &section)?,
                Section::Trailers => self.handle_trailers(key, &section)?,
            }
            self.handle_readable(key)?;
            if let Some(stream) = self.streams.get_mut(key) {
                stream.reader.wake();
            }
        }
        Ok(())
    }

    /// Gives what stands to be said on our decoder stream to the transport.
    pub(crate) fn write_decoder(&mut self) {
        let Some(used) = &mut self.sections.0 else { return };
        if self.facts.lost {
            return;
        }
        let words = used.table.take_words();
        if words.is_empty() {
            return;
        }
        let mut chunks = [words];
        if used.stream.is_none() {
            used.stream = self.quic.open(Dir::Uni);
            if let Some(id) = used.stream {
                // A new stream has room for a byte.
                let _ = self.quic.write(id, &mut [Bytes::from_static(&[stream_type::DECODER as u8])]);
            }
        }
        let written = used.stream.map(|id| self.quic.write(id, &mut chunks));
        match written {
            None | Some(Ok(_) | Err(WriteError::Blocked)) => {
                let [rest] = chunks;
                used.table.keep_words(&rest);
            }
            // The end of the connection tells more.
            Some(Err(WriteError::Stopped(_) | WriteError::Closed)) => {}
        }
    }
}

#[cfg(test)]
mod tests;
