//! The tools of the command line, one file each.

pub mod backfill;
pub mod catalog;
pub mod completion;
pub mod erase;
pub mod inventory;
pub mod lag;
pub mod lake;
pub mod man;
pub mod query;
pub mod rejected;
pub mod schema;
pub mod shard;
pub mod tap;
pub mod test;
pub mod top;
pub mod validate;
