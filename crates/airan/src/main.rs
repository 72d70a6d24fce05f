//! airan: telemetry pipeline for AI-RAN edge sites.
fn main() {}
