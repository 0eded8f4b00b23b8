//! What the kernel holds for sockets: memory that is in no process's resident set.
//!
//! Both ends of every connection are on this machine, so a figure counts both. It is the whole machine's: a run beside
//! other work says something about that work too.

use std::fs;
use std::ops::Sub;

/// Bytes of the kernel's memory at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KernelMemory {
    /// Slab that cannot be reclaimed: sockets, file objects, epoll entries, socket buffers.
    pub slab_bytes: i64,
    /// Inodes of sockets, which count as reclaimable but live as long as the socket.
    pub socket_inode_bytes: i64,
    /// Data in TCP's and UDP's queues (`mem` of sockstat); near nothing for idle connections.
    pub queued_bytes: i64,
}

/// sockstat counts pages.
const PAGE_BYTES: i64 = 4_096;

impl KernelMemory {
    /// As it is now; what cannot be read counts as 0 (slabinfo is for root only).
    pub fn now() -> KernelMemory {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        KernelMemory {
            slab_bytes: unreclaimable(&read("/proc/meminfo")),
            socket_inode_bytes: cache_bytes(&read("/proc/slabinfo"), "sock_inode_cache"),
            queued_bytes: queued_pages(&read("/proc/net/sockstat")) * PAGE_BYTES,
        }
    }

    pub fn total(&self) -> i64 {
        self.slab_bytes + self.socket_inode_bytes + self.queued_bytes
    }
}

impl Sub for KernelMemory {
    type Output = KernelMemory;

    fn sub(self, before: KernelMemory) -> KernelMemory {
        KernelMemory {
            slab_bytes: self.slab_bytes - before.slab_bytes,
            socket_inode_bytes: self.socket_inode_bytes - before.socket_inode_bytes,
            queued_bytes: self.queued_bytes - before.queued_bytes,
        }
    }
}

/// `SUnreclaim` of meminfo.
fn unreclaimable(meminfo: &str) -> i64 {
    let kib: i64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("SUnreclaim:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib * 1_024
}

/// Objects times their size of one cache of slabinfo.
fn cache_bytes(slabinfo: &str, name: &str) -> i64 {
    let of = |line: &str| {
        let mut fields = line.split_whitespace();
        let (found, _active) = (fields.next()?, fields.next()?);
        let objects: i64 = fields.next()?.parse().ok()?;
        let size: i64 = fields.next()?.parse().ok()?;
        (found == name).then_some(objects * size)
    };
    slabinfo.lines().find_map(of).unwrap_or(0)
}

/// `mem` of the TCP and UDP lines of sockstat.
fn queued_pages(sockstat: &str) -> i64 {
    sockstat
        .lines()
        .filter(|line| line.starts_with("TCP:") || line.starts_with("UDP:"))
        .filter_map(|line| line.rsplit_once("mem ")?.1.trim().parse::<i64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let meminfo = "Slab: 9 kB\nSReclaimable:  6 kB\nSUnreclaim:     34512 kB\n";
        assert_eq!(unreclaimable(meminfo), 34_512 * 1_024);
        let slabinfo = "# name <active_objs> <num_objs> <objsize>\n\
                        sock_inode_cache   90  100    832   19    4 : tunables\n";
        assert_eq!(cache_bytes(slabinfo, "sock_inode_cache"), 83_200);
        assert_eq!(cache_bytes(slabinfo, "TCP"), 0);
        let sockstat = "sockets: used 20\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 3\nUDP: inuse 0 mem 2\nUDPLITE: inuse 0\n";
        assert_eq!(queued_pages(sockstat), 5);
    }
}
