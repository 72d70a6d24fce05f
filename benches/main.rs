//! Benchmarks of airan.
fn main() {}
