//! Which addresses a cluster gets, so that clusters of several processes do not collide.
//!
//! All of `127.0.0.0/8` is loopback on Linux. A cluster takes a slot, which is a `/24` of its own: its nodes can then all use the
//! same well-known ports. A locked file says that a slot is taken; the lock goes with its holder, however that ends.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// The port of CQL, on each node's own address.
pub(crate) const CQL_PORT: u16 = 9042;
/// The port on which nodes talk to each other.
pub(crate) const STORAGE_PORT: u16 = 7000;

const SLOTS: u8 = 100;
/// The most nodes that a cluster may have.
pub(crate) const MOST_NODES: usize = 6;

/// A `/24` of loopback addresses and as many JMX ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot(u8);

impl Slot {
    /// Takes the first free slot. It is taken as long as the returned file, or a duplicate of it, is open in any process.
    pub(crate) fn take() -> Result<(Self, File), Error> {
        let directory = directory()?;
        for slot in (0..SLOTS).map(Self) {
            let path = directory.join(format!("slot-{}.lock", slot.0));
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(Error::io("opening", &path))?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if slot.is_silent() => return Ok((slot, lock)),
                Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(Error::io("locking", &path)(error.into())),
            }
        }
        Err(Error::Request(format!("all {SLOTS} loopback networks from 127.0.10.0/24 on are taken")))
    }

    /// The address of node `number`, from 1.
    pub(crate) fn address(self, number: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, self.0 + 10, low_byte(number))
    }

    /// The port of node `number`'s JMX on 127.0.0.1. JMX ignores the node's own address.
    pub(crate) fn jmx_port(self, number: usize) -> u16 {
        17_100 + u16::from(self.0) * 10 + u16::from(low_byte(number))
    }

    /// Whether nothing listens where this slot's nodes are to listen: another user's cluster, say, whose locks are elsewhere.
    fn is_silent(self) -> bool {
        (1..=MOST_NODES).all(|number| {
            let own = [CQL_PORT, STORAGE_PORT].map(|port| SocketAddr::from((self.address(number), port)));
            let jmx = SocketAddr::from((Ipv4Addr::LOCALHOST, self.jmx_port(number)));
            own.into_iter().chain([jmx]).all(|address| TcpListener::bind(address).is_ok())
        })
    }
}

/// This user's directory for locks and for the state of clusters, below the temporary directory.
pub(crate) fn directory() -> Result<PathBuf, Error> {
    let path = std::env::temp_dir().join(format!("tower-cassandra-{}", rustix::process::getuid().as_raw()));
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("making", &path)(error)),
        _ => Ok(path),
    }
}

fn low_byte(number: usize) -> u8 {
    u8::try_from(number).expect("a cluster has few nodes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_slots_taken_at_once_differ_in_every_address() {
        let (one, _lock) = Slot::take().unwrap();
        let (other, _other_lock) = Slot::take().unwrap();
        assert_ne!(one.address(1), other.address(1));
        assert!(one.jmx_port(6) < other.jmx_port(1) || other.jmx_port(6) < one.jmx_port(1));
    }

    #[test]
    fn a_slot_on_which_somebody_listens_is_passed_over() {
        let (free, lock) = Slot::take().unwrap();
        let _listener = TcpListener::bind((free.address(3), CQL_PORT)).unwrap();
        drop(lock);
        let (taken, _lock) = Slot::take().unwrap();
        assert_ne!(taken.address(1), free.address(1));
    }
}
