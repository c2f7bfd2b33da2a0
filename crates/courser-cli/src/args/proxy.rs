//! `courser proxy`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use courser_web::config::{Config, Proxy, Site};

use super::units;
use super::web::{WEB_SIGNALS, WebArgs};
use crate::failure::{Failure, Outcome};

/// Flags of the reverse proxy.
#[derive(Args, Clone, Debug, Default)]
#[command(after_long_help = format!("\
Examples:
  courser proxy --origin http://127.0.0.1:8080
          Answer at https://127.0.0.1:4433/ with what the program at port 8080 says
  courser proxy --origin https://10.0.0.7 --ca origin.pem --listen 0.0.0.0:443 --cert c.pem --key k.pem
  courser proxy --origin http://127.0.0.1:8080 --preserve-host --response-timeout 5m

{WEB_SIGNALS}"))]
pub struct ProxyArgs {
    /// Who answers: http://HOST:PORT or https://HOST:PORT.
    #[arg(long, value_name = "URI", env = "COURSER_ORIGIN", hide_env_values = true)]
    pub origin: Option<String>,
    /// Check an https origin with the certificates in this PEM file instead of the system's.
    #[arg(long, value_name = "PEM", conflicts_with = "insecure", help_heading = "Origin")]
    pub ca: Option<PathBuf>,
    /// Do not check the origin's certificate. Whoever is on the path can read and change everything.
    #[arg(long, help_heading = "Origin")]
    pub insecure: bool,
    /// Speak HTTP/2 to the origin, not HTTP/1.1.
    #[arg(long, conflicts_with = "preserve_host", help_heading = "Origin")]
    pub http2: bool,
    /// Ask the origin by the name that the client asked for.
    #[arg(long, help_heading = "Origin")]
    pub preserve_host: bool,
    /// Believe Forwarded and X-Forwarded-... of clients, and pass them on.
    #[arg(long, help_heading = "Origin")]
    pub trust_forwarded: bool,
    /// Requests at once at the origin [default: 256].
    #[arg(long, value_name = "N", help_heading = "Origin")]
    pub connections: Option<u32>,
    /// How long a connection may take to be made [default: 5s].
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Origin")]
    pub connect_timeout: Option<Duration>,
    /// How long the origin may take to begin its answer [default: 60s].
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Origin")]
    pub response_timeout: Option<Duration>,
    /// How long a body may pause [default: 60s].
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Origin")]
    pub idle_timeout: Option<Duration>,
    /// Flags of every web server.
    #[command(flatten)]
    pub web: WebArgs,
}

impl ProxyArgs {
    /// What to serve.
    ///
    /// # Errors
    /// Flags or a file that mean nothing.
    pub fn config(&self) -> Outcome<Config> {
        let mut config = self.web.config()?;
        let is_empty = config.sites.is_empty();
        match (config.sites.iter_mut().find(|site| site.hosts.is_empty()), &self.origin) {
            (Some(Site { proxy: Some(proxy), .. }), _) => self.change(proxy),
            (Some(_), Some(_)) => {
                return Err(Failure::Usage("the site without hosts is a folder; an origin cannot answer there".into()));
            }
            (None, Some(_)) => {
                let mut proxy = Proxy::default();
                self.change(&mut proxy);
                config.sites.push(Site { proxy: Some(proxy), ..Site::default() });
            }
            (_, None) if is_empty => {
                return Err(Failure::Usage("who answers? Name it with --origin http://HOST:PORT".into()));
            }
            (_, None) => {}
        }
        self.web.add_headers(&mut config)?;
        Ok(config)
    }

    fn change(&self, proxy: &mut Proxy) {
        proxy.origin = self.origin.clone().unwrap_or(std::mem::take(&mut proxy.origin));
        proxy.ca = self.ca.clone().or(proxy.ca.take());
        proxy.insecure |= self.insecure;
        proxy.http2 |= self.http2;
        proxy.preserve_host |= self.preserve_host;
        proxy.trust_forwarded |= self.trust_forwarded;
        proxy.connections = self.connections.map_or(proxy.connections, |n| usize::try_from(n).unwrap_or(usize::MAX));
        proxy.connect_timeout = self.connect_timeout.unwrap_or(proxy.connect_timeout);
        proxy.response_timeout = self.response_timeout.unwrap_or(proxy.response_timeout);
        proxy.idle_timeout = self.idle_timeout.unwrap_or(proxy.idle_timeout);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn config(args: &[&str]) -> Outcome<Config> {
        let cli = Cli::try_parse_from(["courser", "proxy"].iter().chain(args)).unwrap();
        match cli.command {
            Command::Proxy(args) => args.config(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_origin_is_a_site() {
        let made = config(&["--origin=http://h:1", "--connections=7", "--response-timeout=2m", "--http2"]).unwrap();
        made.check().unwrap();
        let expected = Proxy {
            origin: "http://h:1".into(),
            connections: 7,
            response_timeout: Duration::from_secs(120),
            http2: true,
            ..Proxy::default()
        };
        assert_eq!(made.sites[0].proxy, Some(expected));
        assert!(config(&[]).unwrap_err().to_string().contains("--origin"));
        assert!(config(&["--origin=h:1"]).unwrap().check().is_err());
    }

    #[test]
    fn flags_change_the_site_for_all_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let path = file.to_str().unwrap();
        std::fs::write(&file, "[[site]]\n[site.proxy]\norigin=\"http://h\"\nconnections=3").unwrap();
        let made = config(&["--config", path, "--origin=http://i", "--preserve-host"]).unwrap();
        let proxy = made.sites[0].proxy.clone().unwrap();
        assert_eq!((proxy.origin.as_str(), proxy.connections, proxy.preserve_host), ("http://i", 3, true));
        std::fs::write(&file, "[[site]]\n[site.files]").unwrap();
        assert_eq!(config(&["--config", path, "--origin=http://i"]).unwrap_err().code(), 2);
        assert!(config(&["--config", path]).unwrap().sites[0].files.is_some());
    }
}
