//! Catalog, inventory, streams, batch envelope and identities of airan telemetry.
