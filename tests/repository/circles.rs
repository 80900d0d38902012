//! No two files of a crate use each other, directly or through others.
//!
//! A file uses another if it names something that is defined there: in a `use`, in a path, or in
//! the arguments of a macro. Re-exports are followed to the file with the definition, and are no
//! use by themselves. Tests are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Item, Meta, UseTree, visit::Visit};

use crate::files;

/// A module by its path within the crate; the root is empty.
type Module = Vec<String>;

/// What a file of a crate holds.
#[derive(Default)]
struct Source {
    /// The file, relative to the root of the repository.
    file: PathBuf,
    /// Every path that it names, by the module (maybe inline) that names it.
    paths: Vec<(Module, Vec<String>)>,
    /// `pub use`: the new name, and what it stands for. `*` for all names of a module.
    exports: Vec<(String, Vec<String>)>,
}

/// The modules of a crate that have a file.
type Crate = BTreeMap<Module, Source>;

/// Whether an item is compiled for tests only.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition == "test" || condition.starts_with("all (test")
        }
        path => path.path().is_ident("test"),
    })
}

/// Reads a module from its file, and its child modules.
fn read(file: &Path, module: Module, out: &mut Crate) {
    let text = std::fs::read_to_string(files::root().join(file)).unwrap();
    let items = syn::parse_file(&text).unwrap().items;
    let mut source = Source { file: file.to_path_buf(), ..Source::default() };
    let mut children = Vec::new();
    read_items(&items, &module, &mut source, &mut children);
    out.insert(module.clone(), source);
    let is_root = matches!(file.file_name().and_then(|n| n.to_str()), Some("lib.rs" | "main.rs"));
    let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
        _ if is_root => file.parent().unwrap().to_path_buf(),
        Some("mod") => file.parent().unwrap().to_path_buf(),
        Some(stem) => file.parent().unwrap().join(stem),
        None => return,
    };
    for child in children {
        let candidates =
            [folder.join(format!("{child}.rs")), folder.join(child.as_str()).join("mod.rs")];
        let found = candidates.into_iter().find(|path| files::root().join(path).is_file());
        if let Some(path) = found {
            read(&path, [&module[..], &[child]].concat(), out);
        }
    }
}

fn read_items(items: &[Item], module: &Module, source: &mut Source, children: &mut Vec<String>) {
    for item in items {
        match item {
            Item::Mod(child) if !is_test(&child.attrs) => match &child.content {
                None => children.push(child.ident.to_string()),
                Some((_, items)) => {
                    let inner = [&module[..], &[child.ident.to_string()]].concat();
                    read_items(items, &inner, source, &mut Vec::new());
                }
            },
            Item::Use(import) if !is_test(&import.attrs) => {
                let is_export = !matches!(import.vis, syn::Visibility::Inherited);
                for (name, path) in leaves(&import.tree, Vec::new()) {
                    match is_export {
                        true => source.exports.push((name, path)),
                        false => source.paths.push((module.clone(), path)),
                    }
                }
            }
            Item::Mod(_) | Item::Use(_) => {}
            _ => {
                let mut visitor = Paths { module, source };
                visitor.visit_item(item);
            }
        }
    }
}

/// Every name that a `use` brings in, with its path.
fn leaves(tree: &UseTree, mut path: Vec<String>) -> Vec<(String, Vec<String>)> {
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            leaves(&part.tree, path)
        }
        UseTree::Name(name) if name.ident == "self" => {
            vec![(path.last().cloned().unwrap_or_default(), path)]
        }
        UseTree::Name(name) => {
            path.push(name.ident.to_string());
            vec![(name.ident.to_string(), path)]
        }
        UseTree::Rename(name) => {
            if name.ident != "self" {
                path.push(name.ident.to_string());
            }
            vec![(name.rename.to_string(), path)]
        }
        UseTree::Glob(_) => vec![("*".into(), path)],
        UseTree::Group(group) => {
            group.items.iter().flat_map(|tree| leaves(tree, path.clone())).collect()
        }
    }
}

/// Collects the paths in code.
struct Paths<'a> {
    module: &'a Module,
    source: &'a mut Source,
}

impl Paths<'_> {
    fn add(&mut self, path: Vec<String>) {
        if path.len() > 1 {
            self.source.paths.push((self.module.clone(), path));
        }
    }

    /// The paths in the arguments of a macro, which are not parsed.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.add(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.add(std::mem::take(&mut path));
                    self.add_tokens(group.stream());
                    colons = 0;
                }
                _ => {
                    self.add(std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.add(path);
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|part| part.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for (_, path) in leaves(&item.tree, Vec::new()) {
            self.add(path);
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_tokens(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }
}

/// The module whose file defines what `path`, named in `module`, stands for.
fn definition(found: &Crate, module: &Module, path: &[String], depth: usize) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    if depth > 16 {
        return None;
    }
    let (mut at, mut rest) = match first.as_str() {
        "crate" => (Vec::new(), rest),
        "self" => (module.clone(), rest),
        "super" => (module[..module.len().checked_sub(1)?].to_vec(), rest),
        // A child module of this one.
        _ if found.contains_key(&[&module[..], std::slice::from_ref(first)].concat()) => {
            (module.clone(), path)
        }
        _ => return None,
    };
    while let Some((name, after)) = rest.split_first() {
        if name == "super" {
            at.pop()?;
            rest = after;
            continue;
        }
        let child = [&at[..], std::slice::from_ref(name)].concat();
        if found.contains_key(&child) {
            (at, rest) = (child, after);
            continue;
        }
        // A re-export stands for what it names.
        let holder = with_file(found, &at)?;
        let exports = &found[&holder].exports;
        if let Some((_, target)) = exports.iter().find(|(export, _)| export == name) {
            let target = [&target[..], after].concat();
            return definition(found, &holder, &target, depth + 1).or(Some(holder));
        }
        break;
    }
    with_file(found, &at)
}

/// The nearest module around an inline one that has a file.
fn with_file(found: &Crate, module: &Module) -> Option<Module> {
    (0..=module.len()).rev().map(|n| module[..n].to_vec()).find(|m| found.contains_key(m))
}

/// Which files a file uses.
fn uses(found: &Crate) -> BTreeMap<Module, BTreeSet<Module>> {
    let of = |(module, source): (&Module, &Source)| {
        let named = source.paths.iter().filter_map(|(at, path)| definition(found, at, path, 0));
        (module.clone(), named.filter(|other| other != module).collect())
    };
    found.iter().map(of).collect()
}

/// Groups of files that use each other, each sorted.
fn circles(uses: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let reached = |from: &Module| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            for other in uses.get(&module).into_iter().flatten() {
                if reached.insert(other.clone()) {
                    next.push(other.clone());
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        uses.keys().map(|module| (module, reached(module))).collect();
    let mut found: Vec<Vec<Module>> = Vec::new();
    for (module, others) in &reached {
        let is_known = found.iter().any(|circle| circle.contains(*module));
        if others.contains(*module) && !is_known {
            let back = others.iter().filter(|other| reached[other].contains(*module));
            found.push(back.cloned().collect());
        }
    }
    found
}

fn crate_at(root: &str) -> Crate {
    let mut found = Crate::new();
    read(Path::new(root), Vec::new(), &mut found);
    found
}

/// The crates, each by its root file.
fn roots() -> Vec<String> {
    let manifests = files::with_extensions(&["toml"]);
    let folders = manifests
        .iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "Cargo.toml"))
        .filter_map(|path| path.parent());
    folders
        .flat_map(|folder| ["src/lib.rs", "src/main.rs"].map(|file| folder.join(file)))
        .filter(|file| files::root().join(file).is_file())
        .map(|file| file.to_str().unwrap().to_string())
        .collect()
}

#[test]
fn no_two_files_use_each_other() {
    let roots = roots();
    assert!(roots.len() > 8, "{roots:?}");
    let mut report = String::new();
    for root in roots {
        let found = crate_at(&root);
        let uses = uses(&found);
        for circle in circles(&uses) {
            report += &format!("{root}:\n");
            for module in &circle {
                let others: Vec<String> = uses[module]
                    .iter()
                    .filter(|other| circle.contains(other))
                    .map(|other| found[other].file.display().to_string())
                    .collect();
                let file = found[module].file.display();
                report += &format!("    {file} uses {}\n", others.join(", "));
            }
        }
    }
    assert!(
        report.is_empty(),
        "files use each other: move what both need to a file of its own\n{report}"
    );
}

#[test]
fn uses_are_found_in_imports_paths_and_macros_and_through_re_exports() {
    let mut found = Crate::new();
    let mut add = |module: &[&str], text: &str| {
        let module: Module = module.iter().map(|name| name.to_string()).collect();
        let mut source = Source::default();
        let items = syn::parse_file(text).unwrap().items;
        read_items(&items, &module, &mut source, &mut Vec::new());
        found.insert(module, source);
    };
    add(&[], "pub mod a; mod b; pub use b::inner::Type;");
    add(&["a"], "use super::Type; fn f() { crate::c::g(); h!(crate::d::X, 1); }");
    add(
        &["b"],
        "mod inner; pub use inner::Type as Again; #[cfg(test)] mod tests { use crate::a; }",
    );
    add(&["b", "inner"], "pub struct Type; fn back() { super::super::a::f() }");
    add(&["c"], "use crate::b::Again; mod inline { use super::super::d; }");
    add(&["d"], "pub struct X; #[test] fn t() { crate::a::f() }");
    let uses = uses(&found);
    let of = |module: &[&str]| -> Vec<String> {
        let module: Module = module.iter().map(|name| name.to_string()).collect();
        uses[&module].iter().map(|other| other.join("::")).collect()
    };
    assert_eq!(of(&["a"]), ["b::inner", "c", "d"]);
    assert_eq!(of(&["b"]), [""; 0]);
    assert_eq!(of(&["b", "inner"]), ["a"]);
    assert_eq!(of(&["c"]), ["b::inner", "d"]);
    assert_eq!(of(&["d"]), [""; 0]);
    let circles = circles(&uses);
    assert_eq!(circles.len(), 1);
    let names: Vec<String> = circles[0].iter().map(|module| module.join("::")).collect();
    assert_eq!(names, ["a", "b::inner", "c"]);
}
