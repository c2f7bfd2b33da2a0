//! `courser serve`.

use std::path::PathBuf;

use clap::Args;
use courser_web::config::{Config, Files, Site};

use super::web::{WEB_SIGNALS, WebArgs};
use crate::failure::{Failure, Outcome};

/// Flags of the file server.
#[derive(Args, Clone, Debug, Default)]
#[command(after_long_help = format!("\
Examples:
  courser serve
          Serve this folder at https://127.0.0.1:4433/ with a throw-away certificate
  courser serve /srv/www --listen 0.0.0.0:443 --cert cert.pem --key key.pem --user www-data
  courser serve dist --fallback /index.html --header 'cache-control: no-cache'
          One page answers for every address of an application
  courser serve --config courser.toml
          Several sites; `courser config default` shows what such a file can say

{WEB_SIGNALS}"))]
pub struct ServeArgs {
    /// The folder to serve; without one that of the configuration file, or else this folder.
    #[arg(value_name = "DIR", env = "COURSER_ROOT", hide_env_values = true)]
    pub dir: Option<PathBuf>,
    /// List folders that have no index file.
    #[arg(long, help_heading = "Files")]
    pub listing: bool,
    /// Serve names that begin with a dot; .well-known always is served.
    #[arg(long, help_heading = "Files")]
    pub hidden: bool,
    /// Do not follow symbolic links, not even those that stay in the folder.
    #[arg(long, help_heading = "Files")]
    pub no_symlinks: bool,
    /// What to show in place of pages that are not there: the one page of an application.
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    pub fallback: Option<String>,
    /// Flags of every web server.
    #[command(flatten)]
    pub web: WebArgs,
}

impl ServeArgs {
    /// What to serve.
    ///
    /// # Errors
    /// Flags or a file that mean nothing.
    pub fn config(&self) -> Outcome<Config> {
        let mut config = self.web.config()?;
        let changes = self.dir.is_some() || self.listing || self.hidden || self.no_symlinks || self.fallback.is_some();
        if changes || config.sites.is_empty() {
            let files = self.files(&mut config)?;
            if let Some(dir) = &self.dir {
                files.root.clone_from(dir);
            }
            files.listing |= self.listing;
            files.hidden |= self.hidden;
            files.symlinks &= !self.no_symlinks;
            files.fallback = self.fallback.clone().or(files.fallback.take());
        }
        self.web.add_headers(&mut config)?;
        Ok(config)
    }

    /// The files of the site that answers to all other names; flags are about these.
    fn files<'a>(&self, config: &'a mut Config) -> Outcome<&'a mut Files> {
        let at = config.sites.iter().position(|site| site.hosts.is_empty());
        let at = match at {
            Some(at) => at,
            None if self.dir.is_some() || config.sites.is_empty() => {
                config.sites.push(Site { files: Some(Files::default()), ..Site::default() });
                config.sites.len() - 1
            }
            None => {
                return Err(Failure::Usage("these flags are for a folder: name one, or a site without hosts".into()));
            }
        };
        let site = config.sites.get_mut(at).and_then(|site| site.files.as_mut());
        site.ok_or_else(|| Failure::Usage("the site without hosts is a proxy; a folder cannot be served there".into()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(args: &[&str]) -> ServeArgs {
        let cli = Cli::try_parse_from(["courser", "serve"].iter().chain(args)).unwrap();
        match cli.command {
            Command::Serve(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_is_a_site() {
        let config = parse(&[]).config().unwrap();
        assert_eq!(config.sites[0].files, Some(Files::default()));
        let args = ["/srv", "--listing", "--hidden", "--no-symlinks", "--fallback", "/i.html", "--listen=127.0.0.1:0"];
        let config = parse(&args).config().unwrap();
        let files = config.sites[0].files.clone().unwrap();
        assert_eq!((files.root, files.fallback.as_deref()), ("/srv".into(), Some("/i.html")));
        assert!(files.listing && files.hidden && !files.symlinks);
        config.check().unwrap();
    }

    #[test]
    fn flags_change_the_site_for_all_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let path = file.to_str().unwrap();
        let named = "[[site]]\nhosts=[\"a\"]\n[site.files]\nroot=\"/a\"\n";
        std::fs::write(&file, format!("{named}[[site]]\n[site.files]\nroot=\"/b\"\nindex=[\"x\"]")).unwrap();
        let roots = |config: &Config| -> Vec<PathBuf> {
            config.sites.iter().map(|site| site.files.as_ref().unwrap().root.clone()).collect()
        };
        let config = parse(&["--config", path]).config().unwrap();
        assert_eq!(roots(&config), [PathBuf::from("/a"), "/b".into()]);
        let config = parse(&["--config", path, "/c"]).config().unwrap();
        assert_eq!(roots(&config), [PathBuf::from("/a"), "/c".into()]);
        assert_eq!(config.sites[1].files.as_ref().unwrap().index, ["x"]);
        std::fs::write(&file, named).unwrap();
        assert_eq!(parse(&["--config", path, "/c"]).config().unwrap().sites.len(), 2);
        assert_eq!(parse(&["--config", path, "--listing"]).config().unwrap_err().code(), 2);
        std::fs::write(&file, "[[site]]\n[site.proxy]\norigin=\"http://h\"").unwrap();
        assert_eq!(parse(&["--config", path, "/c"]).config().unwrap_err().code(), 2);
    }
}
