//! The handle of one lake: its store, clock and metrics, and the schemas this process has seen.
//!
//! What is done with a lake stands elsewhere: `claim` and `writer` add to it, `files` and `sql` read it, `check` proves it
//! and `expire` takes out of it. Nothing is cached that another process can change: a table's schema only grows, and one
//! that has grown elsewhere is met when this process wants to add to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use airan_model::time::{Clock, Micros};

use crate::commit::{CommitError, TableRows};
use crate::delta::DeltaTable;
use crate::layout::{self, Shard};
use crate::metrics::LakeMetrics;
use crate::schema::{self, SchemaError, TableSchema};
use crate::settings::{CompactionSettings, LakeSettings};
use crate::sql::LATEST;
use crate::store::{OpenLakeError, Store, StoreError};

/// Times a schema is merged again because another shard has added columns in the same moment. Each round is somebody's
/// success, so more shards than this would have to add to one table at once.
const SCHEMA_TRIES: u32 = 64;

/// A lake. Cheap to clone: all clones are one handle.
#[derive(Clone, Debug)]
pub struct Lake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    settings: LakeSettings,
    clock: Clock,
    metrics: LakeMetrics,
    owner: OnceLock<String>,
    /// The newest version this process knows, by table; maybe not the newest there is. As many as there are tables.
    schemas: Mutex<HashMap<String, TableSchema>>,
    /// The newest version of each Delta log this process knows, by table; a look for newer ones costs one listing.
    deltas: Mutex<HashMap<String, DeltaTable>>,
    /// When the claims were made that outlive trimming: as many as shards were taken over in a month.
    claims: Mutex<HashMap<(Shard, u64), Micros>>,
    /// Per table the last removal after which this process made names right.
    settled: Mutex<HashMap<String, Option<u64>>>,
}

impl Lake {
    /// Opens the lake that `settings` name, to write to it. A local folder is made when missing.
    ///
    /// The store is probed first: one that lets a key be created twice cannot arbitrate between two owners of a shard (K2).
    ///
    /// # Errors
    /// See [`OpenLakeError`]; only its `Store` is worth another try.
    pub async fn open(settings: &LakeSettings, clock: Clock) -> Result<Lake, OpenLakeError> {
        let store = Store::open(settings)?;
        store.probe().await?;
        Lake::over(store, settings.clone(), clock)
    }

    /// Opens a lake that is there for `files`, `register`, `raw_rows` and `check`: no probe, so nothing is written.
    ///
    /// # Errors
    /// As [`Lake::open`]; also if a local folder is missing.
    pub async fn open_to_read(settings: &LakeSettings, clock: Clock) -> Result<Lake, OpenLakeError> {
        Lake::over(Store::open_to_read(settings)?, settings.clone(), clock)
    }

    /// A lake in an object store of the caller's, which must be able to arbitrate and gets files that are rewritten in parts of so
    /// many bytes: for simulations of failing stores.
    ///
    /// # Errors
    /// Never in practice.
    #[doc(hidden)]
    pub fn in_object_store<T: object_store::ObjectStore + object_store::multipart::MultipartStore>(
        store: Arc<T>,
        part_bytes: usize,
        settings: LakeSettings,
        clock: Clock,
    ) -> Result<Lake, OpenLakeError> {
        Lake::over(Store::in_parts(store, part_bytes), settings, clock)
    }

    /// A lake in a store that is open and can arbitrate.
    pub(crate) fn over(store: Store, settings: LakeSettings, clock: Clock) -> Result<Lake, OpenLakeError> {
        let metrics = LakeMetrics::new()?;
        let (schemas, deltas, claims, settled) = Default::default();
        let owner = OnceLock::new();
        Ok(Lake(Arc::new(Inner { store, settings, clock, metrics, owner, schemas, deltas, claims, settled })))
    }

    /// What this handle and its clones have counted.
    pub fn metrics(&self) -> &LakeMetrics {
        &self.0.metrics
    }

    /// Says under which name this process claims shards: records show it to people. The first call counts.
    pub fn set_owner(&self, name: &str) {
        let _ = self.0.owner.set(name.to_owned());
    }

    pub(crate) fn owner(&self) -> &str {
        self.0.owner.get().map_or("", String::as_str)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// When it is to be compacted.
    pub fn compaction(&self) -> &CompactionSettings {
        &self.settings().compaction
    }

    pub(crate) fn settings(&self) -> &LakeSettings {
        &self.0.settings
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The schema of the table that `rows` go to, with their columns; a new version is written when they add any.
    ///
    /// # Errors
    /// `Schema` if the rows do not fit, `Store` if the store does not answer.
    pub(crate) async fn schema_for(&self, rows: &TableRows) -> Result<TableSchema, CommitError> {
        let refused = |source| CommitError::Schema { table: rows.table.clone(), source };
        check_name(&rows.table).map_err(refused)?;
        let mut known = self.known(&rows.table);
        for _ in 0..SCHEMA_TRIES {
            if known.is_none() {
                known = schema::load(self.store(), &rows.table).await?;
            }
            let mut merged = match &known {
                Some(known) => known.with(rows),
                None => TableSchema::first(rows),
            }
            .map_err(refused)?;
            let is_known = known.as_ref() == Some(&merged);
            if is_known || schema::store_next(self.store(), &rows.table, &mut merged).await? {
                self.remember(&rows.table, &merged);
                return Ok(merged);
            }
            known = None;
        }
        let source = object_store::Error::Generic { store: "lake", source: "others add columns all the time".into() };
        Err(StoreError::new("add columns to", layout::schemas(&rows.table), source).into())
    }

    /// What this process knows of a table's Delta log.
    pub(crate) fn known_delta(&self, table: &str) -> Option<DeltaTable> {
        self.0.deltas.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    pub(crate) fn remember_delta(&self, table: &DeltaTable) {
        let mut deltas = self.0.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        deltas.insert(table.name().to_owned(), table.clone());
    }

    /// When a claim below the mark was made, if this process has read it.
    pub(crate) fn known_claim(&self, shard: &Shard, n: u64) -> Option<Micros> {
        self.0.claims.lock().unwrap_or_else(PoisonError::into_inner).get(&(shard.clone(), n)).copied()
    }

    pub(crate) fn remember_claim(&self, shard: &Shard, n: u64, at: Micros) {
        self.0.claims.lock().unwrap_or_else(PoisonError::into_inner).insert((shard.clone(), n), at);
    }

    /// `None` where this process has never made the names of the table right.
    pub(crate) fn settled_at(&self, table: &str) -> Option<Option<u64>> {
        self.0.settled.lock().unwrap_or_else(PoisonError::into_inner).get(table).copied()
    }

    pub(crate) fn remember_settled(&self, table: &str, removal: Option<u64>) {
        self.0.settled.lock().unwrap_or_else(PoisonError::into_inner).insert(table.to_owned(), removal);
    }

    fn known(&self, table: &str) -> Option<TableSchema> {
        self.0.schemas.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    fn remember(&self, table: &str, schema: &TableSchema) {
        let mut schemas = self.0.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        match schemas.get(table) {
            Some(known) if known.version >= schema.version => {}
            _ => drop(schemas.insert(table.to_owned(), schema.clone())),
        }
    }
}

fn check_name(table: &str) -> Result<(), SchemaError> {
    let reason = if !layout::is_plain(table) {
        format!("`{table}` cannot be the name of a folder")
    } else if table.ends_with(LATEST) {
        format!("`{table}` ends in `{LATEST}`, as the views over window tables do")
    } else {
        return Ok(());
    };
    Err(SchemaError::Name { reason })
}
