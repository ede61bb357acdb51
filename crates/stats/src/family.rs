//! `stat_family!`: one counter for each value of an enum, in Prometheus one metric with a label.

/// Declares a family of counters: `NAME.LABEL` in text, `NAME{reason="LABEL"}` in Prometheus where NAME ends
/// with `_close_reason`. The enum needs `const ALL: [Self; N]` in the order of its declaration and
/// `const fn name(self) -> &'static str`. All counters exist from the start with 0.
///
/// The type gets `new(&Store, &Scope)`, `detached()` for tests, `Clone` (an `Arc`), `of(label)` (a
/// [`crate::Counter`]) and `total()`.
#[macro_export]
macro_rules! stat_family {
    (
        $(#[$doc:meta])*
        $vis:vis struct $type:ident($label:ty) = $name:literal;
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        $vis struct $type {
            block: $crate::internal::Arc<$crate::internal::Block>,
        }

        const _: () = {
            static NAMES: [&str; <$label>::ALL.len()] = {
                let mut names = [""; <$label>::ALL.len()];
                let mut i = 0;
                while i < names.len() {
                    names[i] = <$label>::ALL[i].name();
                    i += 1;
                }
                names
            };

            static KIND: $crate::internal::Kind = $crate::internal::Kind {
                counters: &NAMES,
                gauges: &[],
                histograms: &[],
                listed: $crate::internal::Listed::Always,
            };

            #[allow(dead_code)]
            impl $type {
                /// The family in `scope`: the one already living in `store`, or a new one.
                $vis fn new(store: &$crate::Store, scope: &$crate::Scope) -> Self {
                    Self { block: store.block(&KIND, scope.child($name)) }
                }

                /// Adds the family in `scope` to an `outline`.
                $vis fn outline(scope: &$crate::Scope, outline: &mut $crate::Outline<'_>) {
                    outline.add(&KIND, &scope.child($name));
                }

                /// Counters that no store prints, for tests.
                $vis fn detached() -> Self {
                    Self { block: $crate::internal::Block::detached(&KIND, 1) }
                }

                /// The counter of one label.
                #[inline]
                $vis fn of(&self, label: $label) -> $crate::Counter<'_> {
                    $crate::Counter::at(&self.block, label as usize)
                }

                /// Sum of all counters since the last reset.
                $vis fn total(&self) -> u64 {
                    <$label>::ALL.iter().map(|label| self.of(*label).value()).sum()
                }
            }
        };
    };
}
