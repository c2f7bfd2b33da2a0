//! Becoming another user once all ports are bound.
//!
//! Groups go before the user, because afterwards nobody may change them; and that there is no way back is tried, not
//! assumed.

use nix::unistd::{Gid, Group, Uid, User};

use crate::config::Server;
use crate::error::WebError;

/// Who to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: String,
    uid: Uid,
    gid: Gid,
}

/// Finds user and group by name or number; `None` when the configuration names neither.
///
/// # Errors
/// There is nobody of that name, or only a group is named.
pub fn find(server: &Server) -> Result<Option<Identity>, WebError> {
    let failed = |why: String| WebError::Privileges(why);
    let Some(name) = &server.user else {
        return match &server.group {
            Some(_) => Err(failed("a group needs a user beside it".into())),
            None => Ok(None),
        };
    };
    let by_number = || name.parse().ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    let user = User::from_name(name).ok().flatten().or_else(by_number);
    let user = user.ok_or_else(|| failed(format!("there is no user `{name}`")))?;
    let gid = match &server.group {
        None => user.gid,
        Some(name) => {
            let by_number = || name.parse().ok().and_then(|gid| Group::from_gid(Gid::from_raw(gid)).ok().flatten());
            let group = Group::from_name(name).ok().flatten().or_else(by_number);
            group.ok_or_else(|| failed(format!("there is no group `{name}`")))?.gid
        }
    };
    if user.uid.is_root() {
        return Err(failed(format!("`{name}` is root, which drops nothing")));
    }
    Ok(Some(Identity { name: user.name, uid: user.uid, gid }))
}

/// Becomes that user, for good. All threads of the process become it.
///
/// # Errors
/// The process may not, or could go back.
pub fn become_user(identity: &Identity) -> Result<(), WebError> {
    let Identity { name, uid, gid } = identity;
    if Uid::current() == *uid && Uid::effective() == *uid && Gid::effective() == *gid {
        return Ok(());
    }
    if !Uid::effective().is_root() {
        let why = format!("only root can become `{name}`; start the server as root, or as `{name}` without `user`");
        return Err(WebError::Privileges(why));
    }
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e: nix::Error| WebError::Privileges(format!("{what} `{name}`: {e}"))
    };
    set_groups(name, *gid).map_err(failed("groups of"))?;
    nix::unistd::setgid(*gid).map_err(failed("group of"))?;
    nix::unistd::setuid(*uid).map_err(failed("becoming"))?;
    if nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err(WebError::Privileges("the process could become root again".into()));
    }
    Ok(())
}

#[cfg(not(target_vendor = "apple"))]
fn set_groups(name: &str, gid: Gid) -> nix::Result<()> {
    let name = std::ffi::CString::new(name).map_err(|_| nix::Error::EINVAL)?;
    nix::unistd::initgroups(&name, gid)
}

#[cfg(target_vendor = "apple")]
fn set_groups(_: &str, _: Gid) -> nix::Result<()> {
    // The system gives a process the groups of its user by itself.
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(user: Option<&str>, group: Option<&str>) -> Server {
        Server { user: user.map(Into::into), group: group.map(Into::into), ..Server::default() }
    }

    #[test]
    fn who_is_not_there_is_named() {
        assert_eq!(find(&server(None, None)).unwrap(), None);
        for (user, group, why) in [
            (None, Some("daemon"), "needs a user"),
            (Some("nobody-of-that-name"), None, "no user `nobody-of-that-name`"),
            (Some("root"), None, "drops nothing"),
            (Some("0"), None, "drops nothing"),
            (Some("nobody"), Some("no-such-group"), "no group `no-such-group`"),
        ] {
            let e = find(&server(user, group)).unwrap_err().to_string();
            assert!(e.contains(why), "{user:?} {group:?}: {e}");
        }
        let nobody = find(&server(Some("nobody"), None)).unwrap().unwrap();
        let number = nobody.uid.to_string();
        assert_eq!(find(&server(Some(&number), None)).unwrap(), Some(nobody));
    }

    #[test]
    fn who_is_not_root_cannot_become_another() {
        let nobody = find(&server(Some("nobody"), None)).unwrap().unwrap();
        if Uid::effective().is_root() {
            // Becoming somebody is for the whole process; the test of the command does that.
            return;
        }
        let e = become_user(&nobody).unwrap_err().to_string();
        assert!(e.contains("only root can become `nobody`"), "{e}");
    }
}
