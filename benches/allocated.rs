//! Bytes that each decoder allocates for a value, beside its parser alone: `cargo run --release -p airan-bench --bin airan-bench-allocated`.
//!
//! A program of its own, because counting makes every allocation slower. Freed bytes count too: it is what went through the
//! allocator, not the peak.

#![allow(dead_code, reason = "the input's modules serve the other benchmarks too")]

mod decoders;
mod fleet;
mod otlp;
mod report;
mod usage;

use std::alloc::System;

use anyhow::Result;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> Result<()> {
    println!(
        "{:<11} {:>12} {:>14} {:>16} {:>18}",
        "decoder", "bytes/value", "parser alone", "allocations/value", "parser alone"
    );
    for decoder in decoders::DECODERS {
        let work = decoders::Work::of(decoder)?;
        let counted = |round: &dyn Fn() -> Result<()>| -> Result<(f64, f64)> {
            let region = Region::new(COUNTED);
            round()?;
            let change = region.change();
            let per = |count: usize| count as f64 / work.values as f64;
            Ok((per(change.bytes_allocated), per(change.allocations + change.reallocations)))
        };
        let own = counted(&|| work.decode().map(|rows| drop(std::hint::black_box(rows))))?;
        let bare = counted(&|| work.parse().map(|found| assert!(found > 0)))?;
        println!("{decoder:<11} {:>12.1} {:>14.1} {:>16.3} {:>18.3}", own.0, bare.0, own.1, bare.1);
    }
    Ok(())
}
