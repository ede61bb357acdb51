//! Blocks to fields (RFC 7541 §3, §6).
//!
//! Copies no value but those of the dynamic table, which are on their own and keep no read buffer alive: raw
//! values are slices of the block, Huffman-coded ones of one buffer a block.

use bytes::{Bytes, BytesMut};

use super::table::{DynamicTable, Entry, STATIC_LEN, static_entry};
use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, Error, Field, Name, huffman, integer, names};

/// Reads the blocks of one connection, all of them and in order.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: DynamicTable,
    /// The largest size that the peer may choose.
    limit: usize,
    /// `SETTINGS_HEADER_TABLE_SIZE` as we announced it, until the peer has acknowledged it.
    announced: Option<usize>,
    /// The longest name or value, as it is coded.
    max_string: usize,
}

impl Decoder {
    /// With our `SETTINGS_HEADER_TABLE_SIZE`. Allocates nothing.
    pub(crate) fn new(max_table: usize) -> Self {
        // Until it has seen our settings, the peer has the right to the default.
        let limit = max_table.max(DEFAULT_TABLE_SIZE);
        Self { table: DynamicTable::new(), limit, announced: Some(max_table), max_string: MAX_STRING }
    }

    /// Takes names and values of so many bytes, instead of 64 KiB.
    pub(crate) fn with_max_string(mut self, bytes: usize) -> Self {
        self.max_string = bytes;
        self
    }

    /// The peer has acknowledged our settings: from its next block on, their table size holds.
    pub(crate) fn settings_acknowledged(&mut self) {
        if let Some(announced) = self.announced.take() {
            self.limit = announced;
        }
    }

    /// Gives the fields of a block to `sink`, each with its size (RFC 7541 §4.1).
    ///
    /// A caller that has read enough goes on reading all the same: the table is part of what is read.
    pub(crate) fn decode(&mut self, block: &Bytes, sink: &mut impl FnMut(Field, usize)) -> Result<(), Error> {
        let mut reader = Reader { block, rest: block, text: BytesMut::new(), max_string: self.max_string };
        self.table_sizes(&mut reader)?;
        while let Some(&first) = reader.rest.first() {
            if first & INDEXED != 0 {
                let index = reader.integer(7)?;
                let (field, size) = self.indexed(index)?;
                sink(field, size);
            } else if first & INCREMENTAL != 0 {
                let (name, name_len) = self.name(&mut reader, 6)?;
                let value = reader.owned_string()?;
                let entry = Entry { name: name.clone(), name_len, value: value.clone() };
                let size = entry.size();
                self.table.insert(entry);
                sink(Field { name, value, sensitive: false }, size);
            } else if first & SIZE_UPDATE != 0 {
                return Err(Error::TableSize);
            } else {
                let (name, name_len) = self.name(&mut reader, 4)?;
                let value = reader.string()?;
                let size = name_len + value.len() + ENTRY_OVERHEAD;
                sink(Field { name, value, sensitive: first & NEVER_INDEXED != 0 }, size);
            }
        }
        Ok(())
    }

    /// The table sizes at a block's beginning (RFC 7541 §4.2).
    fn table_sizes(&mut self, reader: &mut Reader<'_>) -> Result<(), Error> {
        while let Some(&first) = reader.rest.first()
            && first & (INDEXED | INCREMENTAL | SIZE_UPDATE) == SIZE_UPDATE
        {
            let size = reader.integer(5)?;
            if size > self.limit {
                return Err(Error::TableSize);
            }
            self.table.set_max(size);
        }
        // A limit that was lowered and acknowledged MUST be followed by a size within it (RFC 9113 §4.3.1).
        if self.table.max() > self.limit { Err(Error::TableSize) } else { Ok(()) }
    }

    fn indexed(&self, index: usize) -> Result<(Field, usize), Error> {
        if let Some(entry) = static_entry(index) {
            let value = Bytes::from_static(entry.value.as_bytes());
            let size = entry.name_len + value.len() + ENTRY_OVERHEAD;
            return Ok((Field { name: entry.name.clone(), value, sensitive: false }, size));
        }
        let entry = self.dynamic(index)?;
        let field = Field { name: entry.name.clone(), value: entry.value.clone(), sensitive: false };
        Ok((field, entry.size()))
    }

    fn dynamic(&self, index: usize) -> Result<&Entry, Error> {
        index.checked_sub(STATIC_LEN + 1).and_then(|index| self.table.get(index)).ok_or(Error::Index)
    }

    /// The name of a literal field, and its length.
    fn name(&self, reader: &mut Reader<'_>, prefix: u32) -> Result<(Name, usize), Error> {
        let index = reader.integer(prefix)?;
        if index == 0 {
            return reader.name();
        }
        if let Some(entry) = static_entry(index) {
            return Ok((entry.name.clone(), entry.name_len));
        }
        self.dynamic(index).map(|entry| (entry.name.clone(), entry.name_len))
    }

    #[cfg(test)]
    pub(super) fn table_len(&self) -> (usize, usize) {
        self.table.len()
    }
}

/// What is left of a block.
struct Reader<'a> {
    block: &'a Bytes,
    rest: &'a [u8],
    /// Where Huffman codes become text; made large enough for the whole block when the first one is met.
    text: BytesMut,
    max_string: usize,
}

impl<'a> Reader<'a> {
    fn integer(&mut self, prefix: u32) -> Result<usize, Error> {
        integer::decode(&mut self.rest, prefix)
    }

    /// A string literal's bytes as they are, and whether they are Huffman codes (RFC 7541 §5.2).
    fn raw_string(&mut self) -> Result<(&'a [u8], bool), Error> {
        let huffman = self.rest.first().is_some_and(|first| first & HUFFMAN != 0);
        let len = self.integer(7)?;
        if len > self.max_string {
            return Err(Error::Long);
        }
        let (raw, rest) = self.rest.split_at_checked(len).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok((raw, huffman))
    }

    fn string(&mut self) -> Result<Bytes, Error> {
        let (raw, huffman) = self.raw_string()?;
        if huffman {
            self.decode(raw)?;
            Ok(self.text.split().freeze())
        } else {
            Ok(self.block.slice_ref(raw))
        }
    }

    /// A string in memory of its own.
    fn owned_string(&mut self) -> Result<Bytes, Error> {
        let (raw, huffman) = self.raw_string()?;
        if huffman {
            self.decode(raw)?;
            let owned = Bytes::copy_from_slice(&self.text);
            self.text.clear();
            Ok(owned)
        } else {
            Ok(Bytes::copy_from_slice(raw))
        }
    }

    fn name(&mut self) -> Result<(Name, usize), Error> {
        let (raw, huffman) = self.raw_string()?;
        if huffman {
            self.decode(raw)?;
            let named = (names::name(&self.text), self.text.len());
            self.text.clear();
            Ok(named)
        } else {
            Ok((names::name(raw), raw.len()))
        }
    }

    fn decode(&mut self, raw: &[u8]) -> Result<(), Error> {
        if self.text.capacity() == 0 {
            self.text.reserve(huffman::decoded_bound(raw.len() + self.rest.len()) + 1);
        }
        huffman::decode(raw, &mut self.text)
    }
}

/// What Envoy's codec takes unless told otherwise. Stops a peer whose one field fills the whole head.
const MAX_STRING: usize = 64 * 1024;

/// The bits that tell representations apart (RFC 7541 §6).
const INDEXED: u8 = 0x80;
const INCREMENTAL: u8 = 0x40;
const SIZE_UPDATE: u8 = 0x20;
const NEVER_INDEXED: u8 = 0x10;
const HUFFMAN: u8 = 0x80;
