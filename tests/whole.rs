//! Whole-path tests: real airan processes, told apart from the outside only.
//!
//! They prove what no crate can show alone: that rows pushed or scraped reach the lake and the metrics once, over kills and
//! restarts, that bad input harms nobody else, and that the sums of the design add up at the end of every run.

#[path = "broker.rs"]
mod broker;

mod whole {
    mod agent;
    mod architecture;
    mod backfill;
    mod bad_input;
    mod damage;
    mod edge;
    mod fleet;
    #[path = "../folder_copy.rs"]
    mod folder_copy;
    mod kafka;
    mod kafka_in;
    mod kafka_many;
    mod look;
    mod repair;
    mod samples;
    mod site;
    mod up;
}
