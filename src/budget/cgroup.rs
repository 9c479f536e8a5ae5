//! The memory that the control groups (cgroups) of this process leave, from the texts of `/proc`
//! and of the cgroup file systems. Containers, systemd and batch schedulers set these limits; the
//! kernel ends a process that exceeds one.

use std::path::{Path, PathBuf};

/// The two interfaces of the kernel. Both can be mounted at the same time ("hybrid"); each has
/// limits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// One hierarchy per controller, here that of the controller `memory`.
    V1,
    /// One hierarchy for all controllers.
    V2,
}

/// A cgroup of this process, or an ancestor of one, whose limits therefore count, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) version: Version,
    pub(super) folder: PathBuf,
}

/// A mounted cgroup file system.
struct Mount {
    version: Version,
    /// The cgroup whose folder is the mount point. It is not `/` in a container that shares the
    /// cgroup namespace of its host.
    root: PathBuf,
    point: PathBuf,
}

/// The mounts with memory limits in the text of `/proc/self/mountinfo` (see `proc(5)`).
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (own, of_system) = line.split_once(" - ")?;
        let mut own = own.split(' ').skip(3);
        let (root, point) = (own.next()?, own.next()?);
        let mut of_system = of_system.split(' ');
        let (kind, options) = (of_system.next()?, of_system.nth(1).unwrap_or_default());
        let version = match kind {
            "cgroup2" => Version::V2,
            "cgroup" if options.split(',').any(|option| option == "memory") => Version::V1,
            _ => return None,
        };
        let path = |text: &str| PathBuf::from(unescaped(text));
        Some(Mount { version, root: path(root), point: path(point) })
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// A path of `mountinfo`, in which the kernel writes a space as `\040`.
fn unescaped(text: &str) -> String {
    let codes = [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", r"\")];
    codes.iter().fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// The cgroups whose limits hold for this process, from the texts of `/proc/self/cgroup` and
/// `/proc/self/mountinfo`: its own of each version, and all their ancestors that are visible.
pub(super) fn groups(cgroup: &str, mountinfo: &str) -> Vec<Group> {
    let mounts = mounts(mountinfo);
    let mut groups = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let version = match controllers {
            "" => Version::V2,
            names if names.split(',').any(|name| name == "memory") => Version::V1,
            _ => continue,
        };
        for Mount { root, point, .. } in mounts.iter().filter(|mount| mount.version == version) {
            // A path outside of the mount, such as `/../other`, has no folder here. The mount
            // point then is the nearest group that is visible.
            let inside = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
            let mut own = point.clone();
            if inside.components().all(|part| part.as_os_str() != "..") {
                own.extend(inside);
            }
            let above = own.ancestors().take_while(|folder| folder.starts_with(point));
            groups.extend(above.map(|folder| Group { version, folder: folder.to_owned() }));
        }
    }
    groups
}

/// Bytes that a group's limits leave, from its files, which `read` returns. `None` without a limit.
///
/// Cached pages of files that were not used lately (`inactive_file`) count as free: the kernel
/// drops them before it ends a process.
pub(super) fn room(version: Version, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let (limit, used, cached) = match version {
        Version::V1 => {
            (number("memory.limit_in_bytes"), "memory.usage_in_bytes", "total_inactive_file")
        }
        Version::V2 => {
            // Above `memory.high` the kernel slows the processes down until they hardly advance.
            let limits = ["memory.max", "memory.high"].into_iter().filter_map(number);
            (limits.min(), "memory.current", "inactive_file")
        }
    };
    let (limit, used) = (limit?, number(used)?);
    let stat = read("memory.stat").unwrap_or_default();
    let value = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    let cached = value(cached).unwrap_or(0).min(used);
    Some(limit.saturating_sub(used - cached))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(cgroup: &str, mountinfo: &str) -> Vec<(Version, String)> {
        let groups = groups(cgroup, mountinfo).into_iter();
        groups.map(|group| (group.version, group.folder.display().to_string())).collect()
    }

    fn all(version: Version, folders: &[&str]) -> Vec<(Version, String)> {
        folders.iter().map(|folder| (version, (*folder).to_owned())).collect()
    }

    const V2: &str = "\
        24 31 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw\n\
        35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 \
        rw,nsdelegate,memory_recursiveprot\n";

    #[test]
    fn every_ancestor_of_a_nested_group_counts() {
        let cgroup = "0::/user.slice/user-1000.slice/session-2.scope\n";
        assert_eq!(
            folders(cgroup, V2),
            all(
                Version::V2,
                &[
                    "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope",
                    "/sys/fs/cgroup/user.slice/user-1000.slice",
                    "/sys/fs/cgroup/user.slice",
                    "/sys/fs/cgroup",
                ]
            )
        );
    }

    #[test]
    fn a_container_with_a_namespace_sees_its_group_as_the_root() {
        assert_eq!(folders("0::/\n", V2), all(Version::V2, &["/sys/fs/cgroup"]));
        assert_eq!(folders("0::/../../init.scope\n", V2), all(Version::V2, &["/sys/fs/cgroup"]));
    }

    /// Docker on a host with v1: the path is the host's, the mount shows only the own group.
    #[test]
    fn a_container_of_version_1_finds_its_group_at_the_mount_point() {
        let cgroup = "11:memory:/docker/3f29ab\n10:cpu,cpuacct:/docker/3f29ab\n\
                      1:name=systemd:/docker/3f29ab\n";
        let mountinfo = "\
            700 690 0:27 /docker/3f29ab /sys/fs/cgroup/cpu,cpuacct ro,relatime master:15 - \
            cgroup cgroup rw,cpu,cpuacct\n\
            703 690 0:31 /docker/3f29ab /sys/fs/cgroup/memory ro,relatime master:18 - cgroup \
            cgroup rw,memory\n";
        assert_eq!(folders(cgroup, mountinfo), all(Version::V1, &["/sys/fs/cgroup/memory"]));
        // A group that the container made for itself.
        let inside = cgroup.replace("3f29ab", "3f29ab/job");
        assert_eq!(
            folders(&inside, mountinfo),
            all(Version::V1, &["/sys/fs/cgroup/memory/job", "/sys/fs/cgroup/memory"])
        );
    }

    #[test]
    fn both_hierarchies_of_a_hybrid_system_count() {
        let cgroup = "4:memory:/batch/job_7\n3:cpuset:/\n0::/system.slice/slurmd.service\n";
        let mountinfo = "\
            32 31 0:29 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let mut wanted = all(
            Version::V1,
            &[
                "/sys/fs/cgroup/memory/batch/job_7",
                "/sys/fs/cgroup/memory/batch",
                "/sys/fs/cgroup/memory",
            ],
        );
        wanted.extend(all(
            Version::V2,
            &[
                "/sys/fs/cgroup/unified/system.slice/slurmd.service",
                "/sys/fs/cgroup/unified/system.slice",
                "/sys/fs/cgroup/unified",
            ],
        ));
        assert_eq!(folders(cgroup, mountinfo), wanted);
    }

    #[test]
    fn odd_text_has_no_groups() {
        for (cgroup, mountinfo) in [("", ""), ("0::/a", ""), ("", V2), ("x", V2), ("1:2", "- -")] {
            assert!(groups(cgroup, mountinfo).is_empty(), "{cgroup:?} {mountinfo:?}");
        }
        let spaced = V2.replace("/sys/fs/cgroup", r"/mnt/my\040groups");
        assert_eq!(folders("0::/a", &spaced)[0].1, "/mnt/my groups/a");
    }

    fn room_of(version: Version, files: &[(&str, &str)]) -> Option<u64> {
        room(version, |file| {
            files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn pages_that_can_be_dropped_count_as_free() {
        let files = [
            ("memory.max", "167772160\n"),
            ("memory.high", "max\n"),
            ("memory.current", "100000000\n"),
            ("memory.stat", "anon 30000000\nfile 70000000\ninactive_file 60000000\n"),
        ];
        assert_eq!(room_of(Version::V2, &files), Some(167_772_160 - 40_000_000));
        let files = [
            ("memory.limit_in_bytes", "167772160\n"),
            ("memory.usage_in_bytes", "100000000\n"),
            ("memory.stat", "cache 1\ninactive_file 5\ntotal_inactive_file 60000000\n"),
        ];
        assert_eq!(room_of(Version::V1, &files), Some(167_772_160 - 40_000_000));
    }

    #[test]
    fn the_lower_limit_counts_and_a_full_group_has_no_room() {
        let high = [("memory.max", "500"), ("memory.high", "300"), ("memory.current", "100")];
        assert_eq!(room_of(Version::V2, &high), Some(200));
        let full = [("memory.limit_in_bytes", "500"), ("memory.usage_in_bytes", "501")];
        assert_eq!(room_of(Version::V1, &full), Some(0));
    }

    #[test]
    fn a_group_without_limits_has_no_room_to_report() {
        let none = [("memory.max", "max\n"), ("memory.high", "max\n"), ("memory.current", "1\n")];
        assert_eq!(room_of(Version::V2, &none), None);
        // The root has no such files.
        assert_eq!(room_of(Version::V2, &[]), None);
        let unlimited =
            [("memory.limit_in_bytes", "9223372036854771712"), ("memory.usage_in_bytes", "4096")];
        assert!(room_of(Version::V1, &unlimited).unwrap() > 1 << 62);
    }
}
