//! A field that was taken: what to do when it is unset, and what its value must satisfy.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use tidegate_types::json::{JsonPath, Problem, Span};

use super::{Context, Reader, Space};
use crate::values::TimeoutOverride;

/// A taken field. End the chain with `optional`, `or`, `or_default` or `required`.
pub(crate) struct Field<'a, T> {
    pub(super) cx: &'a Context<'a>,
    pub(super) parent: &'a JsonPath,
    pub(super) name: &'static str,
    pub(super) state: State<T>,
    /// Place of the value; of the message when unset.
    pub(crate) span: Span,
}

/// What the file holds for a field.
pub(super) enum State<T> {
    Unset,
    /// It was given and already reported.
    Broken,
    Set(T),
}

impl<'a, T> Field<'a, T> {
    pub(super) fn new(reader: &'a Reader<'a>, name: &'static str, span: Span, state: State<T>) -> Self {
        Self { cx: reader.cx, parent: &reader.path, name, state, span }
    }

    /// The value, `None` when unset.
    pub(crate) fn optional(self) -> Option<T> {
        match self.state {
            State::Set(value) => Some(value),
            State::Unset | State::Broken => None,
        }
    }

    /// The value, or a default.
    pub(crate) fn or(self, default: T) -> T {
        self.optional().unwrap_or(default)
    }

    /// The value, or its type's default.
    pub(crate) fn or_default(self) -> T
    where
        T: Default,
    {
        self.optional().unwrap_or_default()
    }

    /// The value; a problem when unset.
    pub(crate) fn required(self) -> T
    where
        T: Default,
    {
        if matches!(self.state, State::Unset) {
            self.report(format!("missing field `{}`", self.name), None);
        }
        self.or_default()
    }

    /// The value if set, by reference.
    pub(crate) fn peek(&self) -> Option<&T> {
        if let State::Set(value) = &self.state { Some(value) } else { None }
    }

    /// Path of the field.
    pub(crate) fn path(&self) -> JsonPath {
        self.parent.field(self.name)
    }

    /// Reports something about the value.
    pub(crate) fn report(&self, message: impl Into<String>, expected: Option<String>) {
        self.cx.report(Problem { expected, ..Problem::new(self.path(), self.span, message) });
    }

    /// Reports what `check` says of a set value; the value stays.
    pub(crate) fn check(self, check: impl FnOnce(&T) -> Result<(), String>) -> Self {
        if let Some(Err(message)) = self.peek().map(check) {
            self.report(message, None);
        }
        self
    }

    /// Reports every value but `only`, the one that this build's behaviour has.
    pub(crate) fn only(self, only: T)
    where
        T: PartialEq + std::fmt::Display,
    {
        let other = self.peek().is_some_and(|value| *value != only);
        if other {
            self.report("this value is not supported by this build", Some(only.to_string()));
        }
    }

    /// Turns the value into something else, or reports why not.
    pub(crate) fn convert<U>(self, convert: impl FnOnce(T) -> Result<U, String>) -> Field<'a, U> {
        let Self { cx, parent, name, state, span } = self;
        let (state, fault) = match state {
            State::Unset => (State::Unset, None),
            State::Broken => (State::Broken, None),
            State::Set(value) => match convert(value) {
                Ok(value) => (State::Set(value), None),
                Err(fault) => (State::Broken, Some(fault)),
            },
        };
        let field = Field { cx, parent, name, state, span };
        if let Some(fault) = fault {
            field.report(fault, None);
        }
        field
    }
}

impl<T: PartialOrd + fmt::Display> Field<'_, T> {
    /// The value must lie in `range`.
    pub(crate) fn within(self, range: RangeInclusive<T>) -> Self {
        if let Some(value) = self.peek().filter(|value| !range.contains(value)) {
            self.report(
                format!("{value} is out of range"),
                Some(format!("{} to {}", range.start(), range.end())),
            );
        }
        self
    }
}

impl Field<'_, u32> {
    /// The value must not be 0.
    pub(crate) fn positive(self) -> Self {
        self.within(1..=u32::MAX)
    }
}

impl Field<'_, String> {
    /// Names must be unique in `space`.
    pub(crate) fn unique(self, space: Space) -> Self {
        if let Some(name) = self.peek() {
            self.cx.define(space, name, &self.path(), self.span);
        }
        self
    }

    /// The value must not be empty; an unset one is missing.
    pub(crate) fn required_non_empty(self) -> String {
        self.check(|s| if s.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }).required()
    }

    /// The value; empty is unset, as proto3 has it.
    pub(crate) fn non_empty(self) -> Option<String> {
        self.optional().filter(|s| !s.is_empty())
    }
}

impl<T> Field<'_, Vec<T>> {
    /// At least one element.
    pub(crate) fn required_non_empty(self) -> Vec<T> {
        self.check(|v| if v.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }).required()
    }
}

impl Field<'_, Duration> {
    /// Reports a duration shorter than `least`.
    pub(crate) fn at_least(self, least: Duration) -> Self {
        if self.peek().is_some_and(|duration| *duration < least) {
            self.report("the duration is too short", Some(format!("at least {}s", least.as_secs_f64())));
        }
        self
    }

    /// Reports a duration longer than `most`.
    pub(crate) fn at_most(self, most: Duration) -> Self {
        if self.peek().is_some_and(|duration| *duration > most) {
            self.report("the duration is too long", Some(format!("at most {}s", most.as_secs_f64())));
        }
        self
    }

    /// Reports 0.
    pub(crate) fn greater_than_zero(self) -> Self {
        if self.peek().is_some_and(Duration::is_zero) {
            self.report("the duration must not be 0", Some("more than 0s".to_owned()));
        }
        self
    }

    /// 0 means off, unset means `default`.
    pub(crate) fn zero_is_off(self, default: Option<Duration>) -> Option<Duration> {
        match self.optional() {
            None => default,
            Some(duration) => Some(duration).filter(|duration| !duration.is_zero()),
        }
    }

    /// 0 means off, unset means the outer value.
    pub(crate) fn overriding(self) -> TimeoutOverride {
        match self.optional() {
            None => TimeoutOverride::Inherit,
            Some(Duration::ZERO) => TimeoutOverride::Off,
            Some(duration) => TimeoutOverride::After(duration),
        }
    }
}
