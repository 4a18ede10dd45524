//! The flights of a service by key.
//!
//! A flight is a call and those who wait for its answer. What is here knows neither calls nor answers: it keeps who leads a
//! flight, who follows, and whose turn it is when a leader is lost. Three rules keep that simple:
//!
//! - A flight is in the table from before its call is made until after its call has ended or been dropped. So there are never
//!   two calls of one key, unless the older one was too old to be joined.
//! - Whoever joins does so under the lock of the table, and so does whoever finds that nobody follows and takes the flight away.
//! - A flight without a leader is offered by the one who made it so, once its call is gone, and by nobody else.

use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
    time::Duration,
};

use crossbeam_utils::CachePadded;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::followers::{Followers, NobodyWaits, Seat};
use crate::{
    clock::Instant,
    sync::{Mutex, MutexGuard, lock},
};

/// The most tables, so that threads seldom meet at one lock.
const SHARDS: usize = 32;
/// A table is made for as many flights at least: smaller ones fill up long before all of them do.
const FEWEST: usize = 64;
/// What a table keeps of the calls that have ended, to be used again.
const SHELLS: usize = 16;
/// A table of this capacity or less is not made smaller.
const KEPT: usize = 64;

/// All flights. `K` is a key, `C` a call, `A` an answer.
pub(super) struct Flights<K, C, A> {
    shards: Box<[CachePadded<Locked<K, C, A>>]>,
    hasher: DefaultHashBuilder,
    // In a shard.
    most: usize,
    join_within: Duration,
}

type Locked<K, C, A> = Mutex<Shard<K, C, A>>;

struct Shard<K, C, A> {
    entries: HashTable<Entry<K, C, A>>,
    shells: Vec<C>,
    last: u64,
    totals: Totals,
}

struct Entry<K, C, A> {
    // Kept, so that no code of the key's runs where the table grows.
    hash: u64,
    number: u64,
    key: K,
    began: Instant,
    followers: Option<Arc<Followers<C, A>>>,
}

/// What became of calls so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) led: u64,
    pub(super) joined: u64,
    pub(super) passed: u64,
}

/// What is under way, and what became of calls so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Census {
    pub(super) flights: usize,
    pub(super) followers: usize,
    pub(super) totals: Totals,
}

/// Which flight it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    hash: u64,
    number: u64,
}

/// What becomes of a call.
pub(super) enum Boarded<C, A> {
    /// It leads a new flight, with what is left of an earlier call.
    Leads(Flight, Option<C>),
    /// It follows one that began at that moment.
    Follows(Flight, Seat<C, A>, Instant),
    /// There are as many flights as there may be.
    Full,
}

/// A flight that is over. What is left of it is to be dropped where no lock is held, and last.
pub(super) struct Landed<K, C, A> {
    pub(super) followers: Option<Arc<Followers<C, A>>>,
    _key: Option<K>,
    _shell: Option<C>,
}

impl<K, C, A> Flights<K, C, A> {
    pub(super) fn new(most: usize, join_within: Duration) -> Self {
        let shards = 1 << (most / FEWEST).clamp(1, SHARDS).ilog2();
        let shard =
            || Shard { entries: HashTable::new(), shells: Vec::new(), last: 0, totals: Totals::default() };
        Self {
            shards: (0..shards).map(|_| CachePadded::new(Mutex::new(shard()))).collect(),
            hasher: DefaultHashBuilder::default(),
            most: most / shards,
            join_within,
        }
    }

    #[inline]
    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard<K, C, A>> {
        // The table uses the upper and the lower bits. There is a power of two of them.
        let number = (hash >> 40) as usize & (self.shards.len() - 1);
        lock(&self.shards[number])
    }

    /// A call of `key`: leads or follows.
    #[inline]
    pub(super) fn board(&self, key: K, now: Instant) -> Boarded<C, A>
    where
        K: Eq + Hash,
    {
        let hash = self.hasher.hash_one(&key);
        let oldest = now - self.join_within;
        let mut shard = self.shard(hash);
        let shard = &mut *shard;
        let joined = shard.entries.find_mut(hash, |entry| entry.began >= oldest && entry.key == key);
        if let Some(entry) = joined {
            shard.totals.joined += 1;
            let followers = Arc::clone(entry.followers.get_or_insert_default());
            let slot = followers.join();
            let flight = Flight { hash, number: entry.number };
            return Boarded::Follows(flight, Seat { followers, slot }, entry.began);
        }
        if shard.entries.len() >= self.most {
            shard.totals.passed += 1;
            return Boarded::Full;
        }
        shard.totals.led += 1;
        shard.last += 1;
        let number = shard.last;
        let entry = Entry { hash, number, key, began: now, followers: None };
        shard.entries.insert_unique(hash, entry, |entry| entry.hash);
        Boarded::Leads(Flight { hash, number }, shard.shells.pop())
    }

    /// The flight has its answer, and `shell` is what is left of its call: nobody joins any more.
    #[inline]
    pub(super) fn land(&self, flight: Flight, shell: C) -> Landed<K, C, A> {
        let mut shard = self.shard(flight.hash);
        let entry = shard.remove(flight);
        let shell = shard.keep(shell);
        drop(shard);
        let (followers, key) = entry.map(|entry| (entry.followers, entry.key)).unzip();
        Landed { followers: followers.flatten(), _key: key, _shell: shell }
    }

    /// Those who wait for a flight, if anybody does.
    pub(super) fn followed(&self, flight: Flight) -> Option<Arc<Followers<C, A>>> {
        let mut shard = self.shard(flight.hash);
        let followers = shard.entry(flight)?.followers.as_ref()?;
        (followers.waiting() > 0).then(|| Arc::clone(followers))
    }

    /// The flight has no leader any more, and `shell` is what is left of its call: the next follower leads it, and is woken. Or there is no
    /// such flight any more, if nobody follows.
    ///
    /// `own` are its followers, where the table may not know them.
    pub(super) fn offer(&self, flight: Flight, own: Option<&Followers<C, A>>, shell: Option<C>) {
        let mut shard = self.shard(flight.hash);
        let theirs = shard.entry(flight).and_then(|entry| entry.followers.as_deref());
        let next = own.or(theirs).map_or(Err(NobodyWaits), Followers::offer);
        let entry = if next.is_err() { shard.remove(flight) } else { None };
        let shell = shell.and_then(|shell| shard.keep(shell));
        drop(shard);
        if let Ok(Some(waker)) = next {
            waker.wake();
        }
        drop((entry, shell));
    }

    /// The follower that was offered the flight leads it. Its call begins now; what is left of an earlier one is for it.
    pub(super) fn lead(&self, flight: Flight, seat: &Seat<C, A>, now: Instant) -> Option<C> {
        let mut shard = self.shard(flight.hash);
        if let Some(entry) = shard.entry(flight) {
            entry.began = now;
        }
        seat.followers.lead(seat.slot);
        shard.shells.pop()
    }

    pub(super) fn census(&self) -> Census {
        self.shards.iter().fold(Census::default(), |sum, shard| {
            let shard = lock(shard);
            let followers = shard.entries.iter().filter_map(|entry| entry.followers.as_ref());
            Census {
                flights: sum.flights + shard.entries.len(),
                followers: sum.followers + followers.map(|followers| followers.waiting()).sum::<usize>(),
                totals: sum.totals + shard.totals,
            }
        })
    }

    /// For how many flights there is room in memory now.
    #[cfg(all(test, not(palisade_loom)))]
    pub(super) fn capacity(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.capacity()).sum()
    }
}

impl<K, C, A> Shard<K, C, A> {
    fn entry(&mut self, flight: Flight) -> Option<&mut Entry<K, C, A>> {
        self.entries.find_mut(flight.hash, |entry| entry.number == flight.number)
    }

    #[inline]
    fn remove(&mut self, flight: Flight) -> Option<Entry<K, C, A>> {
        let found = self.entries.find_entry(flight.hash, |entry| entry.number == flight.number);
        let (entry, _) = found.ok()?.remove();
        if self.entries.capacity() > KEPT && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2, |entry| entry.hash);
        }
        Some(entry)
    }

    /// Keeps it, or gives it back.
    #[inline]
    fn keep(&mut self, shell: C) -> Option<C> {
        if self.shells.len() >= SHELLS {
            return Some(shell);
        }
        self.shells.push(shell);
        None
    }
}

impl std::ops::Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            led: self.led + other.led,
            joined: self.joined + other.joined,
            passed: self.passed + other.passed,
        }
    }
}
