//! Looks at the panels of this machine again and again, as they come and go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sinew_rt::panel::{Listed, ProcessIdentity};

use crate::panels::{Look, OpenPanel, PanelDir, is_path, name_of};

/// What one look at one panel came to.
pub(crate) struct Seen {
    pub(crate) path: PathBuf,
    /// Or why it cannot be read.
    pub(crate) look: Result<Look, String>,
}

/// What one look at all panels came to.
pub(crate) struct Sight {
    pub(crate) panels: Vec<Seen>,
    /// Directories that this user may not list, and why.
    pub(crate) closed: Vec<String>,
}

/// The panels that are kept open, each with its process.
pub(crate) struct Watch {
    dir: PanelDir,
    wanted: Option<String>,
    open: BTreeMap<PathBuf, (ProcessIdentity, OpenPanel)>,
}

impl Watch {
    /// Of every node, or of the one that is wanted by name or path.
    pub(crate) fn new(dir: PanelDir, wanted: Option<String>) -> Self {
        Self { dir, wanted, open: BTreeMap::new() }
    }

    /// Looks at every panel that is there now. Only reads.
    pub(crate) fn look(&mut self) -> Sight {
        let wanted = self.wanted.clone();
        if let Some(path) = wanted.as_deref().filter(|wanted| is_path(wanted)) {
            return file(Path::new(path));
        }
        let (mut listed, closed) = self.dir.list();
        match &wanted {
            None => listed.retain(|panel| !panel.crashed),
            Some(name) => {
                listed.retain(|panel| name_of(&panel.path) == *name);
                // What is kept of a crash is shown until there is a successor.
                if listed.iter().any(|panel| !panel.crashed) {
                    listed.retain(|panel| !panel.crashed);
                }
                // A copy may have any name.
                if listed.is_empty() && Path::new(name).is_file() {
                    return file(Path::new(name));
                }
            }
        }
        let panels: Vec<_> = listed.into_iter().filter_map(|panel| self.see(panel)).collect();
        self.open.retain(|path, _| panels.iter().any(|seen| seen.path == *path));
        Sight { panels, closed: closed.into_iter().map(|closed| closed.why).collect() }
    }

    fn see(&mut self, listed: Listed) -> Option<Seen> {
        let Listed { path, process, .. } = listed;
        let look = match process {
            Err(error) => Err(crate::panels::in_one_line(&path, &error.to_string())),
            Ok(process) => self.read(&path, process),
        };
        match look {
            // It ended after it was listed.
            Err(_) if !path.exists() => None,
            look => Some(Seen { path, look }),
        }
    }

    fn read(&mut self, path: &Path, process: ProcessIdentity) -> Result<Look, String> {
        // The next process of a name has a new file under the old path.
        if self.open.get(path).is_none_or(|(known, _)| *known != process) {
            self.open.remove(path);
            let open = OpenPanel::open(path).map_err(|failure| failure.message)?;
            self.open.insert(path.to_owned(), (process, open));
        }
        let (_, open) = &self.open[path];
        open.look().map_err(|failure| failure.message)
    }
}

/// A look at one file, which may be anything, also a copy: it is opened anew each time.
fn file(path: &Path) -> Sight {
    let look = OpenPanel::open(path).and_then(|open| open.look());
    let look = look.map_err(|failure| failure.message);
    Sight { panels: vec![Seen { path: path.to_owned(), look }], closed: Vec::new() }
}
