//! The inventory in force, and its reload.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use airan_model::inventory::Inventory;
use anyhow::Result;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// The inventory of a process: the file's, or one that knows this node alone.
///
/// # Errors
/// If the file cannot be read or has a mistake.
pub fn load(config: &Config) -> Result<Inventory> {
    Ok(match &config.inventory.file {
        Some(path) => Inventory::load(path)?,
        None => {
            let section = &config.inventory;
            Inventory::single(&config.node_name()?, &config.region, &section.site, &section.jurisdiction)
        }
    })
}

/// Looks at the file every so often and publishes what it says; a file with a mistake changes nothing. Ends at once where
/// there is no file.
pub async fn follow(config: Config, publish: watch::Sender<Arc<Inventory>>, stop: CancellationToken) {
    let Some(path) = config.inventory.file else { return };
    let every = config.inventory.reload.get().max(Duration::from_millis(100));
    let mut seen = stamp(&path);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let now = stamp(&path);
        if now == seen {
            continue;
        }
        seen = now;
        match Inventory::load(&path) {
            Ok(inventory) => {
                tracing::info!(file = %path.display(), nodes = inventory.nodes(), sites = inventory.sites(), "inventory reloaded");
                let _ = publish.send(Arc::new(inventory));
            }
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "the inventory has a mistake: the one before stays in force");
            }
        }
    }
}

/// What changes when a file is written or replaced. None while it is gone.
fn stamp(path: &Path) -> Option<(SystemTime, u64, PathBuf)> {
    let metadata = std::fs::metadata(path).ok()?;
    // Kubernetes replaces a mounted file by turning a link.
    let target = std::fs::canonicalize(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Mode};

    const ONE: &str = "regions: [{name: north, jurisdiction: de, sites: [{name: s1, nodes: [a]}]}]\n";
    const TWO: &str = "regions: [{name: north, jurisdiction: de, sites: [{name: s1, nodes: [a, b]}]}]\n";

    /// Scenario: the file is broken, then mended with one node more.
    /// Guarantees: the broken file changes nothing; the mended one is in force.
    #[tokio::test]
    async fn a_broken_inventory_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory.yaml");
        std::fs::write(&path, ONE).unwrap();
        let mut config = config::load(None, Mode::Role, None).map_err(|e| e.to_string()).unwrap().config;
        config.inventory.file = Some(path.clone());
        config.inventory.reload = Duration::from_millis(100).into();
        let (publish, mut inventory) = watch::channel(Arc::new(load(&config).unwrap()));
        let stop = CancellationToken::new();
        let following = tokio::spawn(follow(config, publish, stop.clone()));
        tokio::time::sleep(Duration::from_millis(20)).await;
        std::fs::write(&path, "regions: [\n").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(400), inventory.changed()).await.is_err());
        std::fs::write(&path, TWO).unwrap();
        tokio::time::timeout(Duration::from_secs(10), inventory.changed()).await.unwrap().unwrap();
        assert!(inventory.borrow().place("b").is_some());
        stop.cancel();
        following.await.unwrap();
    }

    /// Scenario: no file.
    /// Guarantees: this node has a site, others have none.
    #[test]
    fn without_a_file_this_node_alone_is_known() {
        let mut config = config::load(None, Mode::Role, None).map_err(|e| e.to_string()).unwrap().config;
        config.node = Some("edge-1".to_owned());
        let inventory = load(&config).unwrap();
        assert_eq!(inventory.place("edge-1").map(|p| p.site.to_string()), Some("local".to_owned()));
        assert!(inventory.place("edge-2").is_none());
    }
}
