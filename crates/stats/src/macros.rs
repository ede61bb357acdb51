//! `stat_block!`: declares the statistics of one kind of scope as a type with a method for each.

/// Declares a kind of scope. Each of the four sections may be left out; a statistic whose name is not an
/// identifier is written `method = "dotted.name"`. A family is a type of [`crate::stat_family!`].
///
/// The type gets `new(&Store, Scope)` (returns the living block of the same scope, if any), `detached()` for
/// tests, `scope()`, `Clone` (an `Arc`), and per statistic a method that returns a [`crate::Counter`],
/// [`crate::Gauge`] or [`crate::Histogram`]. See the crate's example.
#[macro_export]
macro_rules! stat_block {
    (
        $(#[$doc:meta])*
        $vis:vis struct $name:ident {
            $(counters { $($(#[$cdoc:meta])* $counter:ident $(= $cname:literal)?),* $(,)? })?
            $(gauges { $($(#[$gdoc:meta])* $gauge:ident $(= $gname:literal)?),* $(,)? })?
            $(histograms { $($(#[$hdoc:meta])* $histogram:ident $(= $hname:literal)?),* $(,)? })?
            $(families { $($(#[$fdoc:meta])* $family:ident: $ftype:ty),* $(,)? })?
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            block: $crate::internal::Arc<$crate::internal::Block>,
            $($($family: $ftype,)*)?
        }

        const _: () = {
            static KIND: $crate::internal::Kind = $crate::internal::Kind {
                counters: &[$($($crate::stat_name!($counter $($cname)?),)*)?],
                gauges: &[$($($crate::stat_name!($gauge $($gname)?),)*)?],
                histograms: &[$($($crate::stat_name!($histogram $($hname)?),)*)?],
                listed: $crate::internal::Listed::Always,
            };

            // Their positions are the indices of the cells.
            #[allow(non_camel_case_types, dead_code, clippy::enum_variant_names)]
            enum CounterIndex { $($($counter,)*)? }
            #[allow(non_camel_case_types, dead_code, clippy::enum_variant_names)]
            enum GaugeIndex { $($($gauge,)*)? }
            #[allow(non_camel_case_types, dead_code, clippy::enum_variant_names)]
            enum HistogramIndex { $($($histogram,)*)? }

            #[allow(dead_code)]
            impl $name {
                /// The statistics of `scope`: those already living in `store`, or new ones.
                $vis fn new(store: &$crate::Store, scope: $crate::Scope) -> Self {
                    Self {
                        $($($family: <$ftype>::new(store, &scope),)*)?
                        block: store.block(&KIND, scope),
                    }
                }

                /// Whether someone holds the statistics of `scope`.
                $vis fn lives(store: &$crate::Store, scope: &$crate::Scope) -> bool {
                    store.lives(&KIND, scope)
                }

                /// Adds those of `scope` to an `outline`: they are listed, and made at their first use.
                $vis fn outline(scope: &$crate::Scope, outline: &mut $crate::Outline<'_>) {
                    $($(<$ftype>::outline(scope, outline);)*)?
                    outline.add(&KIND, scope);
                }

                /// Statistics that no store prints, for tests: any thread may write them.
                $vis fn detached() -> Self {
                    Self {
                        $($($family: <$ftype>::detached(),)*)?
                        block: $crate::internal::Block::detached(&KIND, 1),
                    }
                }

                /// The scope that these statistics belong to.
                $vis fn scope(&self) -> &$crate::Scope {
                    self.block.scope()
                }

                $($(
                    #[doc = concat!("Counter `", $crate::stat_name!($counter $($cname)?), "`.\n\n")]
                    $(#[$cdoc])*
                    #[inline]
                    $vis fn $counter(&self) -> $crate::Counter<'_> {
                        $crate::Counter::at(&self.block, CounterIndex::$counter as usize)
                    }
                )*)?
                $($(
                    #[doc = concat!("Gauge `", $crate::stat_name!($gauge $($gname)?), "`.\n\n")]
                    $(#[$gdoc])*
                    #[inline]
                    $vis fn $gauge(&self) -> $crate::Gauge<'_> {
                        $crate::Gauge::at(&self.block, GaugeIndex::$gauge as usize)
                    }
                )*)?
                $($(
                    #[doc = concat!("Histogram `", $crate::stat_name!($histogram $($hname)?), "`.\n\n")]
                    $(#[$hdoc])*
                    #[inline]
                    $vis fn $histogram(&self) -> $crate::Histogram<'_> {
                        $crate::Histogram::at(&self.block, HistogramIndex::$histogram as usize)
                    }
                )*)?
                $($(
                    $(#[$fdoc])*
                    #[inline]
                    $vis fn $family(&self) -> &$ftype {
                        &self.$family
                    }
                )*)?
            }
        };
    };
}

/// The name of a statistic in [`stat_block!`]: the literal if one was given, else the identifier.
#[doc(hidden)]
#[macro_export]
macro_rules! stat_name {
    ($ident:ident) => {
        stringify!($ident)
    };
    ($ident:ident $name:literal) => {
        $name
    };
}
