//! A place of its own for a daemon whose paths and users are compiled in: a mount namespace in which
//! its package lies over `/usr`, and `/var`, `/run` and the user table are a scratch folder.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use postrider_loadgen::clock;
use tempfile::TempDir;

use super::group::Group;
use crate::cpu;
use crate::run::{Subject, pause};

/// How long a daemon may take to answer its port.
const START_MAX: Duration = Duration::from_secs(20);
/// How long it may take to end after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The first of the user ids given to users that the machine does not have.
const FIRST_UID: u32 = 64_990;

/// Runs inside the namespace: `$1` the unpacked package, `$2` the scratch folder, `$3` the group.
const ENTER: &str = "set -e; root=$1; own=$2; echo $$ >$3/cgroup.procs; shift 3
mount -t overlay -o ro,lowerdir=$root/usr:/usr overlay /usr
mount --bind $own/passwd /etc/passwd
mount --bind $own/group /etc/group
mount --bind $own/var /var
mount --bind $own/run /run
exec \"$@\"";

/// Its scratch folder, before it is started.
pub(super) struct Place {
    scratch: TempDir,
    package: PathBuf,
    group: Group,
    pub(super) address: SocketAddr,
}

/// A daemon in its place; ended when dropped, with all that it has left behind.
struct Daemon {
    child: Child,
    address: SocketAddr,
    /// `None`: its time is that of its processes as `/proc` knows them.
    group: Option<Group>,
    _scratch: TempDir,
}

impl Place {
    /// Unpacks the packages, which are not installed: they would remove another mail server.
    pub(super) fn new(packages: &[&str], users: &[&str]) -> Result<Self> {
        let package = unpacked(packages)?;
        let scratch = TempDir::with_prefix("postrider-peer-")?;
        open_to_all(scratch.path())?;
        for folder in ["var/spool", "var/lib", "var/log", "var/tmp", "var/mail", "run"] {
            fs::create_dir_all(scratch.path().join(folder))?;
        }
        std::os::unix::fs::symlink("/run", scratch.path().join("var/run"))?;
        let address = (Ipv4Addr::LOCALHOST, free_port()?).into();
        let place = Self { scratch, package, group: Group::new()?, address };
        place.write_users(users)?;
        Ok(place)
    }

    /// A folder of it, by its path in there.
    pub(super) fn folder(&self, path: &str, owner: Option<usize>, mode: u32) -> Result<()> {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let folder = self.scratch.path().join(path);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode))?;
        let owner = owner.map(uid).transpose()?;
        Ok(chown(&folder, owner, owner)?)
    }

    /// A file of settings in it, with the marks `@PORT@`, `@ADDRESS@` and `@NEXT_PORT@` filled in.
    pub(super) fn settings(&self, path: &str, text: &str, next_hop: SocketAddr) -> Result<()> {
        let path = self.scratch.path().join(path);
        fs::create_dir_all(path.parent().context("a file in a folder")?)?;
        Ok(fs::write(path, filled(text, self.address.port(), next_hop))?)
    }

    pub(super) fn start(self, command: &[&str]) -> Result<Box<dyn Subject>> {
        let child = self.inside(command).stderr(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.context("cannot run unshare")?;
        let daemon = Daemon {
            child,
            address: self.address,
            group: Some(self.group),
            _scratch: self.scratch,
        };
        wait_for(daemon.address, || true)
            .with_context(|| format!("`{}` in its namespace (root?)", command.join(" ")))?;
        Ok(Box::new(daemon))
    }

    /// What a command in there says.
    pub(super) fn output(&self, command: &[&str]) -> Result<String> {
        let output = self.inside(command).output().context("cannot run unshare")?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    fn inside(&self, command: &[&str]) -> Command {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]);
        unshare.arg(&self.package).arg(self.scratch.path()).arg(self.group.path()).args(command);
        unshare
    }

    fn write_users(&self, users: &[&str]) -> Result<()> {
        let (mut passwd, mut group) =
            (fs::read_to_string("/etc/passwd")?, fs::read_to_string("/etc/group")?);
        for (number, user) in users.iter().enumerate() {
            let id = uid(number)?;
            passwd += &format!("{user}:x:{id}:{id}::/var/empty:/usr/sbin/nologin\n");
            group += &format!("{user}:x:{id}:\n");
        }
        fs::write(self.scratch.path().join("passwd"), passwd)?;
        Ok(fs::write(self.scratch.path().join("group"), group)?)
    }
}

impl Subject for Daemon {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn cpu_seconds(&self) -> Result<f64> {
        match &self.group {
            Some(group) => group.cpu_seconds(),
            None => cpu::seconds_of_tree(self.child.id()),
        }
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: a signal to our own child, which has not been waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let start = clock::now_ns();
        while matches!(self.child.try_wait(), Ok(None))
            && clock::now_ns() - start < clock::nanos(STOP_MAX)
        {
            pause(LOOK_AGAIN);
        }
        // Gone already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A child of any kind that takes mail at an address.
pub(super) fn started(
    child: Child,
    address: SocketAddr,
    scratch: TempDir,
) -> Result<Box<dyn Subject>> {
    let daemon = Daemon { child, address, group: None, _scratch: scratch };
    wait_for(address, || true)?;
    Ok(Box::new(daemon))
}

pub(super) fn filled(text: &str, port: u16, next_hop: SocketAddr) -> String {
    text.replace("@PORT@", &port.to_string())
        .replace("@ADDRESS@", &next_hop.ip().to_string())
        .replace("@NEXT_PORT@", &next_hop.port().to_string())
}

pub(super) fn wait_for(address: SocketAddr, is_up: impl Fn() -> bool) -> Result<()> {
    let start = clock::now_ns();
    while clock::now_ns() - start < clock::nanos(START_MAX) {
        if TcpStream::connect(address).is_ok() && is_up() {
            return Ok(());
        }
        pause(LOOK_AGAIN);
    }
    bail!("nothing answers on {address}")
}

pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Daemons run as other users and must reach their folders.
pub(super) fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?)
}

fn uid(number: usize) -> Result<u32> {
    Ok(FIRST_UID + u32::try_from(number)?)
}

/// The packages, unpacked beside our own program; downloaded the first time.
fn unpacked(packages: &[&str]) -> Result<PathBuf> {
    let folder = std::env::current_exe()?.with_file_name("peers").join(packages[0]);
    let (debs, root) = (folder.join("debs"), folder.join("root"));
    if root.join("usr").exists() {
        return Ok(root);
    }
    fs::create_dir_all(&debs)?;
    let mut download = Command::new("apt-get");
    download.arg("download").args(packages).current_dir(&debs);
    succeed(&mut download).context("cannot download Debian packages")?;
    for deb in fs::read_dir(&debs)? {
        succeed(Command::new("dpkg").arg("-x").arg(deb?.path()).arg(&root))?;
    }
    Ok(root)
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))
}
