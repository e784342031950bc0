//! The shapes of flow nodes and expressions: which fields each has and what stands in them.
//!
//! One table, read by two: the walk that finds every fault of a flow, and the JSON Schema. It
//! describes the document format of the crate `mlua-flow-ir`; the schema's tests compare the two.

/// What stands in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// A name that is not empty.
    Name,
    /// Any JSON value.
    Any,
    /// An expression.
    Expr,
    /// A list of expressions.
    Exprs,
    /// An expression that is a path, because it is written to.
    Target,
    /// A bare path.
    Path,
    /// A node.
    Node,
    /// A list of nodes.
    Nodes,
    /// A join mode.
    Join,
    /// A count from 1.
    Count,
}

/// One field of a shape.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) holds: Holds,
    pub(crate) required: bool,
}

/// One kind of node, or one operation of an expression.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) tag: &'static str,
    pub(crate) about: &'static str,
    pub(crate) fields: &'static [Field],
}

const fn field(name: &'static str, holds: Holds) -> Field {
    Field { name, holds, required: true }
}

const fn shape(tag: &'static str, about: &'static str, fields: &'static [Field]) -> Shape {
    Shape { tag, about, fields }
}

const PAIR: &[Field] = &[field("lhs", Holds::Expr), field("rhs", Holds::Expr)];
const ONE: &[Field] = &[field("arg", Holds::Expr)];
const MANY: &[Field] = &[field("args", Holds::Exprs)];

/// The join modes of a fanout.
pub(crate) const JOINS: [&str; 4] = ["all", "any", "race", "all_settled"];

/// The paths that the flow crate reads: `$` or `ctx`, then `.key` and `["key"]` segments.
pub(crate) const PATH_PATTERN: &str = r#"^(?:\$|ctx)(?:\.[^.\[]+|\.?\["[^"]+"\])*$"#;

/// The seven kinds of nodes.
pub(crate) const NODES: [Shape; 7] = [
    shape(
        "step",
        "Hands `in` to the agent `ref` as one task and writes its value to `out`.",
        &[field("ref", Holds::Name), field("in", Holds::Expr), field("out", Holds::Target)],
    ),
    shape("seq", "Runs its children in order.", &[field("children", Holds::Nodes)]),
    shape(
        "branch",
        "Runs `then` where `cond` is true, `else` where it is false.",
        &[field("cond", Holds::Expr), field("then", Holds::Node), field("else", Holds::Node)],
    ),
    shape(
        "fanout",
        "Runs `body` once an item at the same time, each with the item at `bind`; joins to `out`.",
        &[
            field("items", Holds::Expr),
            field("bind", Holds::Target),
            field("body", Holds::Node),
            field("join", Holds::Join),
            field("out", Holds::Target),
        ],
    ),
    shape(
        "loop",
        "Runs `body` while `cond` holds, at most `max` times, counting at `counter`.",
        &[
            field("counter", Holds::Target),
            field("cond", Holds::Expr),
            field("body", Holds::Node),
            field("max", Holds::Count),
        ],
    ),
    shape(
        "try",
        "Runs `body`; where it fails, takes its writes back and runs `catch`.",
        &[
            field("body", Holds::Node),
            field("catch", Holds::Node),
            Field { name: "err_at", holds: Holds::Target, required: false },
        ],
    ),
    shape(
        "let",
        "Writes `value` to the path `at`.",
        &[field("at", Holds::Path), field("value", Holds::Expr)],
    ),
];

/// The twenty operations of expressions.
pub(crate) const EXPRS: [Shape; 20] = [
    shape("path", "Reads the context at a path.", &[field("at", Holds::Path)]),
    shape("lit", "A literal value.", &[field("value", Holds::Any)]),
    shape("eq", "Equal.", PAIR),
    shape("ne", "Not equal.", PAIR),
    shape("lt", "Less.", PAIR),
    shape("lte", "Less or equal.", PAIR),
    shape("gt", "Greater.", PAIR),
    shape("gte", "Greater or equal.", PAIR),
    shape("not", "True where the argument is null or false.", ONE),
    shape("and", "True where no argument is null or false.", MANY),
    shape("or", "True where some argument is neither null nor false.", MANY),
    shape("exists", "True where the argument can be read and is not null.", ONE),
    shape("add", "Sum.", PAIR),
    shape("sub", "Difference.", PAIR),
    shape("mul", "Product.", PAIR),
    shape("div", "Quotient.", PAIR),
    shape("mod", "Remainder, with the sign of the right side.", PAIR),
    shape("len", "Items of a list, characters of a text, keys of an object.", ONE),
    shape(
        "in",
        "True where `haystack` holds `needle`.",
        &[field("needle", Holds::Expr), field("haystack", Holds::Expr)],
    ),
    shape(
        "call_extern",
        "Calls a pure function that the host registered.",
        &[field("ref", Holds::Name), field("args", Holds::Exprs)],
    ),
];
