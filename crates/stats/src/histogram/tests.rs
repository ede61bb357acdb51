#![allow(clippy::unwrap_used)]

use super::*;

fn summary(values: impl IntoIterator<Item = u64>) -> Summary {
    let cells = HistogramCells::default();
    values.into_iter().for_each(|v| cells.record(v, Writers::One));
    let mut dense = Dense::new();
    cells.add_to(&mut dense);
    dense.summary()
}

#[test]
fn every_value_lies_in_its_bucket() {
    for value in (0..100_000).chain((17..38).flat_map(|e| [(1 << e) - 1, 1 << e, (1 << e) + 12_345])) {
        let (chunk, slot) = bucket(value);
        let index = (chunk * SLOTS + slot) as u16;
        let (low, width) = (low_end(index), width(index));
        assert!(low <= value && value < low + width, "{value} not in {low}+{width}");
        assert!(width == 1 || width * SLOTS as u64 <= value, "{value}: bucket {width} wide");
    }
    assert_eq!(bucket(u64::MAX), (CHUNKS - 1, SLOTS - 1));
}

#[test]
fn small_values_are_exact() {
    let s = summary([1, 1, 1, 7]);
    assert_eq!(s.quantile(0.0), Some(1.0));
    assert_eq!(s.quantile(0.75), Some(1.0));
    assert_eq!(s.quantile(0.9), Some(7.0));
    assert_eq!(s.quantile(1.0), Some(7.0));
    assert_eq!((s.count(), s.sum()), (4, 10));
    assert_eq!(summary([]).quantile(0.5), None);
}

#[test]
fn quantiles_err_by_less_than_one_percent() {
    // 1 ms to about 5 hours, log-uniform.
    let values: Vec<u64> = (0..20_000).map(|i| (1.000_84f64.powi(i)) as u64).collect();
    let s = summary(values.iter().copied());
    for q in [0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0] {
        let exact = values[((q * values.len() as f64).ceil() as usize).max(1) - 1] as f64;
        let got = s.quantile(q).unwrap();
        assert!((got - exact).abs() <= exact * 0.01, "q {q}: {got} for {exact}");
    }
    for single in [1_000, 3_599_999, 86_400_000] {
        let got = summary([single]).quantile(0.5).unwrap();
        assert!((got - single as f64).abs() <= single as f64 * 0.016, "{got} for {single}");
    }
}

#[test]
fn counts_at_most() {
    let s = summary([0, 1, 1, 5, 100, 5_000_000]);
    assert_eq!([0.5, 1.0, 5.0, 99.0, 100.0, 3.6e6].map(|b| s.count_at_most(b)), [1, 3, 4, 4, 5, 5]);
}

#[test]
fn since_subtracts_bucket_by_bucket() {
    let old = summary([1, 5, 5, 300]);
    let new = summary([1, 2, 5, 5, 5, 300, 900]);
    assert_eq!(new.since(&old), summary([2, 5, 900]));
    assert_eq!(new.since(&new).count(), 0);
}
