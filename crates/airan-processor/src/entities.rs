//! Who a row is about: node and entity columns, as a small number.
//!
//! Sources report the same entities in the same order over and over, so the entity of a row is mostly the one that followed
//! its predecessor's entity the last time: one comparison, no hashing. Only where that guess is wrong is the key looked up.
//!
//! An entity idle for longer than the setting counts as unknown from that moment, whether or not its place has been cleared
//! yet: what is remembered depends on the log alone (**W3**).

use std::hash::BuildHasher;

use airan_model::time::{MINUTE, Micros};
use arrow::array::{Array, StringArray};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::settings::CounterSettings;

/// Idle entities are cleared when the log's time passes a multiple of this.
const SWEEP: Micros = 10 * MINUTE;

/// Entity of a row that could not be given one: there were too many.
pub(crate) const UNTRACKED: u32 = u32::MAX;

/// Marks a null in a key, where the length of a text would stand.
const NULL: u32 = u32::MAX;

#[derive(Debug)]
struct Entity {
    key: Box<[u8]>,
    last_seen: Micros,
    /// The entity of the row that followed the last time.
    follower: u32,
    is_free: bool,
}

/// The entities of one stream in one shard. Numbers are dense, and used again after an entity was forgotten.
#[derive(Debug)]
pub(crate) struct Entities {
    entities: Vec<Entity>,
    by_key: HashTable<u32>,
    free: Vec<u32>,
    hasher: RandomState,
    next_sweep: Micros,
    idle: Micros,
    most: usize,
    key: Vec<u8>,
    /// Entities forgotten because they were idle.
    pub forgotten: u64,
    /// Rows that got no entity because there were too many.
    pub untracked: u64,
}

/// An entity's number, and whether it has just begun: what was remembered under that number is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub entity: u32,
    pub is_new: bool,
}

impl Entities {
    pub fn new(settings: &CounterSettings) -> Entities {
        Entities {
            entities: Vec::new(),
            by_key: HashTable::new(),
            free: Vec::new(),
            hasher: RandomState::default(),
            next_sweep: Micros::MIN,
            idle: settings.idle.micros(),
            most: settings.entities.min(UNTRACKED as usize),
            key: Vec::with_capacity(128),
            forgotten: 0,
            untracked: 0,
        }
    }

    /// Clears idle entities now and then. Call with every message of the partition, whatever its stream: when room becomes free
    /// is then a function of the log alone, also over a restart (**W3**).
    pub fn sweep(&mut self, log_time: Micros) {
        if log_time < self.next_sweep {
            return;
        }
        self.next_sweep = next_sweep(log_time);
        for number in 0..self.entities.len() {
            let entity = &mut self.entities[number];
            if entity.is_free || log_time.saturating_sub(entity.last_seen) <= self.idle {
                continue;
            }
            entity.is_free = true;
            let hash = self.hasher.hash_one(&*entity.key);
            entity.key = Box::default();
            if let Ok(found) = self.by_key.find_entry(hash, |other| *other == number as u32) {
                found.remove();
            }
            self.free.push(number as u32);
            self.forgotten += 1;
        }
    }

    /// The entity of row `row` of `columns`, with the guess that it follows `before` as it did the last time.
    pub fn find(&mut self, columns: &[Option<&StringArray>], row: usize, before: u32, log_time: Micros) -> Found {
        let mut key = std::mem::take(&mut self.key);
        write_key(&mut key, columns, row);
        let found = self.find_key(&key, before, log_time);
        self.key = key;
        found
    }

    /// The entity of a row, if it is known; nothing changes.
    pub fn get(&self, columns: &[Option<&StringArray>], row: usize) -> Option<u32> {
        let mut key = Vec::with_capacity(128);
        write_key(&mut key, columns, row);
        let hash = self.hasher.hash_one(&*key);
        self.by_key.find(hash, |number| *self.entities[*number as usize].key == *key).copied()
    }

    fn find_key(&mut self, key: &[u8], before: u32, log_time: Micros) -> Found {
        let guess = self.entities.get(before as usize).map_or(UNTRACKED, |entity| entity.follower);
        let entity = match self.entities.get(guess as usize) {
            Some(entity) if *entity.key == *key && !entity.is_free => guess,
            _ => {
                let hash = self.hasher.hash_one(key);
                let found = self.by_key.find(hash, |number| *self.entities[*number as usize].key == *key).copied();
                let entity = match found {
                    Some(entity) => entity,
                    None => return self.add(key, hash, log_time),
                };
                if let Some(before) = self.entities.get_mut(before as usize) {
                    before.follower = entity;
                }
                entity
            }
        };
        let is_new = self.touch(entity, log_time);
        Found { entity, is_new }
    }

    /// Notes that an entity was seen; true where it had been idle for too long.
    fn touch(&mut self, entity: u32, log_time: Micros) -> bool {
        let entity = &mut self.entities[entity as usize];
        let was_idle = log_time.saturating_sub(entity.last_seen) > self.idle;
        entity.last_seen = entity.last_seen.max(log_time);
        self.forgotten += u64::from(was_idle);
        was_idle
    }

    fn add(&mut self, key: &[u8], hash: u64, log_time: Micros) -> Found {
        let made = Entity { key: key.into(), last_seen: log_time, follower: UNTRACKED, is_free: false };
        let entity = match self.free.pop() {
            Some(number) => {
                self.entities[number as usize] = made;
                number
            }
            None if self.entities.len() < self.most => {
                self.entities.push(made);
                (self.entities.len() - 1) as u32
            }
            None => {
                self.untracked += 1;
                return Found { entity: UNTRACKED, is_new: false };
            }
        };
        let (entities, hasher) = (&self.entities, &self.hasher);
        self.by_key.insert_unique(hash, entity, |number| hasher.hash_one(&*entities[*number as usize].key));
        Found { entity, is_new: true }
    }

    /// Entities in use: number, values of the key columns, when last seen.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Vec<Option<&str>>, Micros)> {
        self.entities
            .iter()
            .enumerate()
            .filter(|(_, entity)| !entity.is_free)
            .map(|(number, entity)| (number as u32, read_key(&entity.key), entity.last_seen))
    }

    /// Goes on where a state of that log time ended: the next sweep comes when it would have come.
    pub fn resume(&mut self, log_time: Micros) {
        self.next_sweep = next_sweep(log_time);
    }

    /// Takes back an entity after a restart.
    pub fn restore(&mut self, values: &[Option<&str>], last_seen: Micros) -> Found {
        let mut key = Vec::new();
        values.iter().for_each(|value| push_value(&mut key, *value));
        let hash = self.hasher.hash_one(&*key);
        self.add(&key, hash, last_seen)
    }

    /// One more than the highest number given out.
    pub fn capacity(&self) -> usize {
        self.entities.len()
    }

    /// Entities remembered.
    pub fn len(&self) -> usize {
        self.entities.len() - self.free.len()
    }
}

fn next_sweep(log_time: Micros) -> Micros {
    log_time.div_euclid(SWEEP).saturating_add(1).saturating_mul(SWEEP)
}

/// Writes a row's key; a column that is absent counts as null.
fn write_key(key: &mut Vec<u8>, columns: &[Option<&StringArray>], row: usize) {
    key.clear();
    for column in columns {
        push_value(key, column.filter(|column| column.is_valid(row)).map(|column| column.value(row)));
    }
}

fn push_value(key: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(text) => {
            key.extend_from_slice(&(text.len() as u32).to_le_bytes());
            key.extend_from_slice(text.as_bytes());
        }
        None => key.extend_from_slice(&NULL.to_le_bytes()),
    }
}

fn read_key(mut key: &[u8]) -> Vec<Option<&str>> {
    let mut values = Vec::new();
    while let Some((length, rest)) = key.split_first_chunk::<4>() {
        key = rest;
        let length = u32::from_le_bytes(*length);
        if length == NULL {
            values.push(None);
            continue;
        }
        let Some((text, rest)) = rest.split_at_checked(length as usize) else { break };
        values.push(std::str::from_utf8(text).ok());
        key = rest;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use airan_model::time::{DAY, HOUR};

    fn entities(most: usize) -> Entities {
        Entities::new(&CounterSettings { idle: "24h".parse().unwrap(), entities: most })
    }

    fn find(entities: &mut Entities, node: &str, device: Option<&str>, before: u32, at: Micros) -> Found {
        let (node, device) = (StringArray::from(vec![node]), StringArray::from(vec![device]));
        entities.find(&[Some(&node), Some(&device)], 0, before, at)
    }

    #[test]
    fn an_entity_keeps_its_number_and_null_is_not_the_empty_text() {
        let mut all = entities(10);
        let first = find(&mut all, "a", None, UNTRACKED, 0);
        let second = find(&mut all, "a", Some(""), first.entity, 0);
        let third = find(&mut all, "", Some("a"), second.entity, 0);
        assert_eq!([first.entity, second.entity, third.entity], [0, 1, 2]);
        for (node, device, number) in [("a", None, 0), ("a", Some(""), 1), ("", Some("a"), 2)] {
            for before in [UNTRACKED, 0, 1, 2] {
                let found = find(&mut all, node, device, before, 1);
                assert_eq!(found, Found { entity: number, is_new: false });
            }
        }
        let kept: Vec<_> = all.iter().map(|(number, values, _)| (number, values)).collect();
        assert_eq!(kept, [(0, vec![Some("a"), None]), (1, vec![Some("a"), Some("")]), (2, vec![Some(""), Some("a")])]);
    }

    /// Scenario: an entity pauses for a day and a little, with and without a sweep in between.
    /// Guarantees: it is new again either way; its number is used again after a sweep.
    #[test]
    fn an_idle_entity_is_forgotten_at_the_same_moment_with_and_without_a_sweep() {
        for is_swept in [false, true] {
            let mut all = entities(10);
            find(&mut all, "a", None, UNTRACKED, 0);
            assert!(!find(&mut all, "a", None, UNTRACKED, DAY).is_new);
            if is_swept {
                all.sweep(2 * DAY + 1);
                assert_eq!((all.len(), all.capacity()), (0, 1));
            }
            assert_eq!(find(&mut all, "a", None, UNTRACKED, 2 * DAY + 1), Found { entity: 0, is_new: true });
            assert_eq!((all.len(), all.forgotten), (1, 1));
        }
    }

    #[test]
    fn beyond_the_limit_rows_are_untracked_and_counted() {
        let mut all = entities(1);
        find(&mut all, "a", None, UNTRACKED, 0);
        assert_eq!(find(&mut all, "b", None, 0, HOUR), Found { entity: UNTRACKED, is_new: false });
        assert_eq!(all.untracked, 1);
        assert_eq!(find(&mut all, "a", None, UNTRACKED, HOUR).entity, 0);
    }
}
