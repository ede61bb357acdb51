//! A message put together from its frames.

use tidegate_testkit::h2::hpack::Field;

/// A request or a response, as much of it as has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The interim responses (1xx).
    pub interim: Vec<Vec<Field>>,
    /// The fields of the head, pseudo-fields first.
    pub fields: Vec<Field>,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers, if some came.
    pub trailers: Option<Vec<Field>>,
    /// Whether END_STREAM came.
    pub ended: bool,
    /// The code of the RST_STREAM that came.
    pub reset: Option<u32>,
}

impl Message {
    /// The status; 0 when there is none.
    pub fn status(&self) -> u16 {
        self.header(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }

    /// All values of a field.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The first value of a trailer.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        find(self.trailers.as_ref()?, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Adds a header block.
    pub(super) fn add_block(&mut self, fields: Vec<Field>) {
        let status = find(&fields, ":status").unwrap_or_default();
        if status.starts_with('1') {
            self.interim.push(fields);
        } else if self.fields.is_empty() {
            self.fields = fields;
        } else {
            self.trailers = Some(fields);
        }
    }
}

fn find<'a>(fields: &'a [Field], name: &str) -> Option<&'a str> {
    fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}
