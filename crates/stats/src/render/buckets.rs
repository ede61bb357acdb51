//! The forms of a histogram that are not quantiles: counts at bounds, and the cells themselves.

use std::fmt::Write;

use super::{BOUNDS, Buckets};
use crate::histogram::{Merged, Summary};

/// A bound, and how many values of the last interval and of all time it stands for.
pub(super) struct Counted {
    pub(super) bound: f64,
    pub(super) interval: u64,
    pub(super) cumulative: u64,
}

/// The counts at each bound: of all values up to it, or with [`Buckets::Disjoint`] of those above the bound
/// before.
pub(super) fn counted(views: &Merged, form: Buckets) -> impl Iterator<Item = Counted> {
    let mut before = (0, 0);
    BOUNDS.into_iter().map(move |bound| {
        let upto = (views.interval.count_at_most(bound), views.cumulative.count_at_most(bound));
        let less = if form == Buckets::Disjoint { std::mem::replace(&mut before, upto) } else { (0, 0) };
        Counted { bound, interval: upto.0 - less.0, cumulative: upto.1 - less.1 }
    })
}

/// ` B0.5(1,3) B1(1,4) ..`: interval and all time at each bound.
pub(super) fn push_counted(views: &Merged, form: Buckets, out: &mut String) {
    for Counted { bound, interval, cumulative } in counted(views, form) {
        // As C's `%g` writes it.
        let _ = match bound {
            1e6.. => write!(out, " B{}e+06({interval},{cumulative})", bound / 1e6),
            _ => write!(out, " B{bound}({interval},{cumulative})"),
        };
    }
}

/// `12,1:3, 18,1:1`: low end, width and count of each cell that is not empty.
pub(super) fn push_cells(summary: &Summary, out: &mut String) {
    for (i, (low, width, count)) in summary.cells().enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        let _ = write!(out, "{separator}{low},{width}:{count}");
    }
}
