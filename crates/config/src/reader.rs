//! Reading one message: typed accessors that note which fields were taken, and report the rest.
//!
//! A message implements [`Message`]: its Envoy name and a function that takes each field it supports from
//! a [`Reader`]. Supporting a further field is one accessor call. What was not taken is looked up in
//! Envoy's own field list ([`known`]), so that "unknown" and "not supported by this build" are told apart
//! without a list in every file. Values are always returned, bad ones as defaults, so that one run finds
//! all problems; [`Context`] collects them and the tree is thrown away if there are any.
//! In describe mode (see [`crate::schema`]) the same functions run on empty messages and leave behind the
//! shape of every field.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use tidegate_types::json::{JsonPath, Kind, Member, Node, Problem, Span, names_field, nearest};

use crate::schema::{Recorder, Shape};
use crate::tls::Secrets;

mod any;
mod field;
mod known;
mod scalar;

pub(crate) use any::Any;
pub(crate) use field::Field;

/// A message of the Envoy API.
pub(crate) trait Message: Sized {
    /// Its full protobuf name.
    const NAME: &'static str;

    /// Takes all fields, whatever is wrong with some of them.
    fn read(r: &Reader<'_>) -> Self;
}

/// A message that is shared from the start: a large one is not moved about in lists that grow.
impl<T: Message> Message for std::sync::Arc<T> {
    const NAME: &'static str = T::NAME;

    fn read(r: &Reader<'_>) -> Self {
        Self::new(T::read(r))
    }
}

/// What all readers of a run share.
pub(crate) struct Context<'a> {
    problems: RefCell<Vec<Problem>>,
    /// While above 0, problems are dropped: placeholders and descriptions are read from nothing.
    muted: Cell<u32>,
    pub(crate) recorder: Option<RefCell<Recorder>>,
    /// Where each name was first used, for duplicates.
    names: RefCell<HashMap<(Space, String), Span>>,
    references: RefCell<Vec<Reference>>,
    /// Lists of names that readers are done with.
    spare: RefCell<Vec<Vec<&'static str>>>,
    /// `max_direct_response_body_size_bytes` of the route table that is being read.
    pub(crate) direct_response_limit: Cell<u32>,
    /// Whether the endpoints that are being read may be names.
    pub(crate) takes_names: Cell<bool>,
    /// Whether the addresses that are being read may be of UDP.
    pub(crate) takes_udp: Cell<bool>,
    /// Route tables need not refer to clusters that exist, unless they say so themselves.
    pub(crate) references_may_dangle: Cell<bool>,
    /// Secrets that TLS contexts may name.
    pub(crate) secrets: RefCell<Arc<Secrets>>,
    /// Whether what a validation context trusts may come from elsewhere than itself.
    pub(crate) trust_later: Cell<bool>,
    pub(crate) read_file: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
}

/// Namespaces in which names must be unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Listener,
    ListenerAddress,
    Cluster,
    Domain,
    Upgrade,
    RuntimeLayer,
}

impl Space {
    fn noun(self) -> &'static str {
        match self {
            Self::Listener => "listener name",
            Self::ListenerAddress => "address",
            Self::Cluster => "cluster name",
            Self::Domain => "domain",
            Self::Upgrade => "upgrade type",
            Self::RuntimeLayer => "runtime layer name",
        }
    }
}

/// A route's cluster, checked when all clusters are known.
struct Reference {
    cluster: String,
    path: JsonPath,
    span: Span,
}

impl<'a> Context<'a> {
    pub(crate) fn new(read_file: &'a dyn Fn(&str) -> Result<Vec<u8>, String>) -> Self {
        Self {
            problems: RefCell::default(),
            muted: Cell::new(0),
            recorder: None,
            names: RefCell::default(),
            references: RefCell::default(),
            spare: RefCell::default(),
            direct_response_limit: Cell::new(u32::MAX),
            takes_names: Cell::new(false),
            takes_udp: Cell::new(false),
            references_may_dangle: Cell::new(false),
            secrets: RefCell::default(),
            trust_later: Cell::new(false),
            read_file,
        }
    }

    /// Reads the document. The problems, in file order, if there are any.
    pub(crate) fn read_root<T: Message>(&'a self, node: &'a Node) -> Result<T, Vec<Problem>> {
        let value = Reader::open::<T>(self, node, JsonPath::root());
        self.check_references();
        let problems = self.take_problems();
        if problems.is_empty() { Ok(value) } else { Err(problems) }
    }

    pub(crate) fn report(&self, problem: Problem) {
        if self.muted.get() == 0 {
            self.problems.borrow_mut().push(problem);
        }
    }

    /// Drops what was said of `unset`: that it is missing is the fault of the misspelt name that is reported
    /// in its place.
    fn forgive(&self, unset: &JsonPath) {
        self.problems.borrow_mut().retain(|problem| problem.path != *unset);
    }

    /// What `T` reads from nothing: defaults and, in describe mode, its shape.
    pub(crate) fn empty<T: Message>(&self) -> T {
        self.muted.set(self.muted.get() + 1);
        let value = T::read(&Reader::new(self, T::NAME, &[], Span::default(), JsonPath::root()));
        self.muted.set(self.muted.get() - 1);
        value
    }

    /// In describe mode, describes `T` unless it was, or is being, described.
    fn describe<T: Message>(&self) {
        let first = self.recorder.as_ref().is_some_and(|recorder| recorder.borrow_mut().enter(T::NAME));
        if first {
            self.empty::<T>();
        }
    }

    /// Forgets the names of `space`: another message opens a new namespace.
    pub(crate) fn forget(&self, space: Space) {
        self.names.borrow_mut().retain(|(of, _), _| *of != space);
    }

    /// Notes that `name` is used in `space`; a problem if it was before.
    pub(crate) fn define(&self, space: Space, name: &str, path: &JsonPath, span: Span) {
        if self.muted.get() > 0 {
            return;
        }
        match self.names.borrow_mut().entry((space, name.to_owned())) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(span);
            }
            std::collections::hash_map::Entry::Occupied(first) => {
                let line = first.get().line;
                let message = format!("duplicate {} `{name}`, first used in line {line}", space.noun());
                self.report(Problem::new(path.clone(), span, message));
            }
        }
    }

    pub(crate) fn refer(&self, cluster: &str, path: JsonPath, span: Span) {
        if self.muted.get() == 0 {
            self.references.borrow_mut().push(Reference { cluster: cluster.to_owned(), path, span });
        }
    }

    /// How many references were noted; with [`Context::drop_references`] for tables that are not checked.
    pub(crate) fn reference_count(&self) -> usize {
        self.references.borrow().len()
    }

    pub(crate) fn drop_references(&self, from: usize) {
        self.references.borrow_mut().truncate(from);
    }

    /// The problems so far, in file order.
    pub(crate) fn take_problems(&self) -> Vec<Problem> {
        let mut problems = self.problems.take();
        problems.sort_by_key(|problem| problem.span.start);
        problems
    }

    /// The clusters that were referred to, with what is to be said of each that does not exist.
    pub(crate) fn take_references(&self) -> Vec<(String, Problem)> {
        let problem = |Reference { cluster, path, span }| {
            let message = format!("unknown cluster `{cluster}`");
            (cluster, Problem::new(path, span, message))
        };
        self.references.take().into_iter().map(problem).collect()
    }

    fn check_references(&self) {
        let names = self.names.borrow();
        let clusters =
            || names.keys().filter(|(space, _)| *space == Space::Cluster).map(|(_, name)| name.as_str());
        for Reference { cluster, path, span } in self.references.take() {
            if !names.contains_key(&(Space::Cluster, cluster.clone())) {
                self.report(Problem {
                    suggestion: nearest(&cluster, clusters()).map(str::to_owned),
                    ..Problem::new(path, span, format!("unknown cluster `{cluster}`"))
                });
            }
        }
    }
}

/// A message while it is read.
pub(crate) struct Reader<'a> {
    pub(crate) cx: &'a Context<'a>,
    message: &'static str,
    members: &'a [Member],
    pub(crate) span: Span,
    pub(crate) path: JsonPath,
    taken: RefCell<Vec<&'static str>>,
    /// Oneofs that must be set; checked at the end, when it is known what was taken.
    required: RefCell<Vec<&'static [&'static str]>>,
}

impl<'a> Reader<'a> {
    fn new(
        cx: &'a Context<'a>,
        message: &'static str,
        members: &'a [Member],
        span: Span,
        path: JsonPath,
    ) -> Self {
        let taken = RefCell::new(cx.spare.borrow_mut().pop().unwrap_or_default());
        Self { cx, message, members, span, path, taken, required: RefCell::default() }
    }

    /// A reader of no message, to open others from.
    pub(crate) fn nowhere(cx: &'a Context<'a>) -> Self {
        Self::new(cx, "", &[], Span::default(), JsonPath::root())
    }

    /// Reads `node` as a `T`, and reports the fields that `T` did not take.
    pub(crate) fn open<T: Message>(cx: &'a Context<'a>, node: &'a Node, path: JsonPath) -> T {
        if !matches!(node.kind, Kind::Object(_)) {
            cx.report(Problem {
                expected: Some("an object".to_owned()),
                ..Problem::new(path, node.span, format!("wrong type: {}", node.describe()))
            });
            return cx.empty();
        }
        let reader = Self::new(cx, T::NAME, node.members(), node.span, path);
        let value = T::read(&reader);
        reader.finish();
        value
    }

    /// The member that holds the field `name`, unless it is unset (absent or null).
    fn take(&self, name: &'static str, shape: impl FnOnce() -> Shape) -> Option<&'a Node> {
        if let Some(recorder) = &self.cx.recorder {
            recorder.borrow_mut().field(self.message, name, shape());
        }
        if self.members.is_empty() {
            // Nothing is left over then.
            return None;
        }
        self.taken.borrow_mut().push(name);
        let mut given = self.members.iter().filter(|member| names_field(&member.key, name));
        let first = given.next()?;
        if let Some(second) = given.next() {
            self.cx.report(Problem::new(
                self.path.field(&second.key),
                second.key_span,
                format!("`{}` and `{}` are the same field", first.key, second.key),
            ));
        }
        (first.value.kind != Kind::Null).then_some(&first.value)
    }

    /// Whether the field is set, without taking it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| names_field(&member.key, name) && member.value.kind != Kind::Null)
    }

    /// Reports all but the first of the `names` that are set; they exclude each other.
    pub(crate) fn at_most_one(&self, names: &[&'static str]) {
        let mut set = names.iter().filter(|name| self.has(name));
        if let (Some(first), Some(second)) = (set.next(), set.next()) {
            self.cx.report(Problem {
                expected: Some(format!("at most one of {}", names.join(", "))),
                ..Problem::new(
                    self.path.field(second),
                    self.place(second),
                    format!("`{second}` cannot be set together with `{first}`"),
                )
            });
        }
    }

    /// As [`Reader::at_most_one`], and reports when none is set.
    pub(crate) fn exactly_one(&self, names: &'static [&'static str]) {
        self.at_most_one(names);
        self.required.borrow_mut().push(names);
    }

    fn check_required(&self) {
        // A field of Envoy's that this build does not support may be what was chosen: it gets its own report.
        let unsupported = || self.members.iter().filter(|member| !self.supports(&member.key));
        if unsupported().any(|member| known::has(self.message, &member.key)) {
            return;
        }
        // So may a misspelt one.
        let misspelt = |names: &[&'static str]| {
            let meant = |member: &Member| nearest(&member.key, self.names());
            unsupported().filter_map(meant).any(|meant| names.contains(&meant))
        };
        for names in self.required.borrow().iter().filter(|names| !names.iter().any(|name| self.has(name))) {
            if misspelt(names) {
                continue;
            }
            let (message, expected) = match names {
                [name] => (format!("missing field `{name}`"), None),
                _ => ("nothing is chosen".to_owned(), Some(format!("one of {}", names.join(", ")))),
            };
            self.cx.report(Problem { expected, ..Problem::new(self.path.clone(), self.span, message) });
        }
    }

    /// Reports `name` if it is set: a field of Envoy's that this build does not support for a reason worth telling.
    pub(crate) fn refuse(&self, name: &'static str, message: &str) {
        self.taken.borrow_mut().push(name);
        if self.has(name) {
            self.cx.report(Problem::new(self.path.field(name), self.place(name), message));
        }
    }

    /// Where a field's key stands; the message's place when it is unset.
    pub(crate) fn place(&self, name: &str) -> Span {
        let member = self.members.iter().find(|member| names_field(&member.key, name));
        member.map_or(self.span, |member| member.key_span)
    }

    /// Reports a problem of the message as a whole.
    pub(crate) fn problem(&self, message: impl Into<String>) {
        self.cx.report(Problem::new(self.path.clone(), self.span, message));
    }

    fn supports(&self, key: &str) -> bool {
        self.taken.borrow().iter().any(|name| names_field(key, name))
    }

    /// The fields of the message: this build's, then Envoy's.
    fn names(&self) -> Vec<&'static str> {
        self.taken.borrow().iter().copied().chain(known::fields(self.message)).collect()
    }

    fn finish(self) {
        self.check_required();
        for member in self.members.iter().filter(|member| !self.supports(&member.key)) {
            let key = &*member.key;
            let mut problem = Problem::new(self.path.field(key), member.key_span, String::new());
            if known::has(self.message, key) {
                if member.value.kind == Kind::Null {
                    continue;
                }
                problem.message = format!("`{key}` is known to Envoy, but not supported by this build");
            } else {
                problem.message = format!("unknown field `{key}`");
                let meant = nearest(key, self.names());
                if let Some(meant) = meant.filter(|meant| !self.has(meant)) {
                    self.cx.forgive(&self.path.field(meant));
                }
                problem.suggestion = meant.map(str::to_owned);
            }
            self.cx.report(problem);
        }
        let mut taken = self.taken.into_inner();
        taken.clear();
        self.cx.spare.borrow_mut().push(taken);
    }
}
