//! What can be said of a query from its text alone: which tables it names, where they stand, and what it may not contain.
//!
//! Here because the syntax tree still knows line and column of everything; the plan knows them for columns only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::logical_expr::Volatility;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr, ObjectName, ObjectNamePart, Query, Select,
    SetExpr, Spanned, Statement as SqlStatement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::error::{PlanError, Refusal, SqlPlace, nearest};

/// Aggregates whose state can be merged and does not grow with the rows (or, for `count(DISTINCT)`, with distinct values only).
const MERGEABLE: [&str; 26] = [
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "histogram_merge",
    "last_value",
    "max",
    "mean",
    "min",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "var_pop",
    "var_samp",
];

/// A query that passed, and where its parts stand.
#[derive(Debug)]
pub(crate) struct Syntax {
    /// The parsed query.
    pub statement: Statement,
    /// Tables it names that are not its own WITH names, lower case unless quoted, with their first place.
    pub relations: BTreeMap<String, SqlPlace>,
    selects: BTreeMap<String, SelectPlaces>,
    joins: Vec<SqlPlace>,
    /// Where its SELECT begins.
    pub start: SqlPlace,
}

/// Places of the first SELECT that reads a table directly.
#[derive(Clone, Copy, Debug)]
struct SelectPlaces {
    relation: SqlPlace,
    group_by: Option<SqlPlace>,
    joined: Option<SqlPlace>,
}

impl Syntax {
    /// Reads a query and refuses what its text shows to be impossible.
    pub fn read(sql: &str, functions: &SessionState) -> Result<Syntax, PlanError> {
        let statements = DFParser::parse_sql(sql).map_err(syntax_error)?;
        let mut statements = statements.into_iter();
        let (Some(statement), None) = (statements.next(), statements.next()) else {
            return Err(PlanError::Query(Refusal::NotOneSelect));
        };
        let Statement::Statement(inner) = &statement else { return Err(PlanError::Query(Refusal::NotOneSelect)) };
        let SqlStatement::Query(query) = inner.as_ref() else { return Err(PlanError::Query(Refusal::NotOneSelect)) };
        let mut reader = Reader {
            functions,
            own_names: BTreeSet::new(),
            relations: BTreeMap::new(),
            selects: BTreeMap::new(),
            joins: Vec::new(),
        };
        if let ControlFlow::Break(error) = query.visit(&mut reader) {
            return Err(*error);
        }
        let Reader { own_names, mut relations, selects, joins, .. } = reader;
        // A WITH may bear the name of the stream it reads: such a name counts as a stream if there is one (see `plan`).
        relations.retain(|name, (_, is_inside)| *is_inside || !own_names.contains(name));
        let relations = relations.into_iter().map(|(name, (place, _))| (name, place)).collect();
        let start = place_of(query.body.span()).unwrap_or(SqlPlace { line: 1, column: 1 });
        Ok(Syntax { statement, relations, selects, joins, start })
    }

    /// Where a table is read.
    pub fn place_of_relation(&self, name: &str) -> Option<SqlPlace> {
        self.selects.get(name).map(|select| select.relation).or_else(|| self.relations.get(name).copied())
    }

    /// Where the rows of a table are grouped; where it is read, if they are not.
    pub fn place_of_group_by(&self, name: &str) -> Option<SqlPlace> {
        self.selects.get(name).and_then(|select| select.group_by).or_else(|| self.place_of_relation(name))
    }

    /// Where a table is joined; where it is read, if it is not.
    pub fn place_of_join(&self, name: &str) -> Option<SqlPlace> {
        self.selects.get(name).and_then(|select| select.joined).or_else(|| self.place_of_relation(name))
    }

    /// Where the first join stands.
    pub fn first_join(&self) -> Option<SqlPlace> {
        self.joins.first().copied()
    }
}

/// The place of a span; None for one the parser left empty.
pub(crate) fn place_of(span: Span) -> Option<SqlPlace> {
    let start = span.start;
    (start.line > 0).then_some(SqlPlace { line: start.line, column: start.column })
}

/// The parser writes the place at the end of its message.
fn syntax_error(error: datafusion::error::DataFusionError) -> PlanError {
    let text = match error.find_root() {
        datafusion::error::DataFusionError::SQL(error, _) => match error.as_ref() {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
            ParserError::RecursionLimitExceeded => "it is nested too deep".to_owned(),
        },
        other => other.strip_backtrace(),
    };
    let place = text.rsplit_once(" at Line: ").and_then(|(message, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((message.to_owned(), SqlPlace { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? }))
    });
    match place {
        Some((message, place)) => PlanError::at(Some(place), Refusal::Syntax(message)),
        None => PlanError::Query(Refusal::Syntax(text)),
    }
}

struct Reader<'a> {
    functions: &'a SessionState,
    own_names: BTreeSet<String>,
    /// Tables with their place, and whether they stand inside a WITH of the same name.
    relations: BTreeMap<String, (SqlPlace, bool)>,
    selects: BTreeMap<String, SelectPlaces>,
    joins: Vec<SqlPlace>,
}

type Verdict = ControlFlow<Box<PlanError>>;

fn refuse(span: Span, refusal: Refusal) -> Verdict {
    ControlFlow::Break(Box::new(PlanError::at(place_of(span), refusal)))
}

/// The name DataFusion will look up; None for one with a schema before it.
fn name_of(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] if ident.quote_style.is_some() => Some(ident.value.clone()),
        [ObjectNamePart::Identifier(ident)] => Some(ident.value.to_lowercase()),
        _ => None,
    }
}

impl Visitor for Reader<'_> {
    type Break = Box<PlanError>;

    fn pre_visit_query(&mut self, query: &Query) -> Verdict {
        if let Some(order_by) = &query.order_by {
            return refuse(order_by.span(), Refusal::Ordered("ORDER BY"));
        }
        if let Some(limit) = &query.limit_clause {
            return refuse(limit.span(), Refusal::Ordered("LIMIT"));
        }
        if let Some(fetch) = &query.fetch {
            return refuse(fetch.span(), Refusal::Ordered("LIMIT"));
        }
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = if cte.alias.name.quote_style.is_some() {
                cte.alias.name.value.clone()
            } else {
                cte.alias.name.value.to_lowercase()
            };
            note_reads_of_own_name(&name, &cte.query.body, &mut self.relations);
            self.own_names.insert(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> Verdict {
        let group_by = match &select.group_by {
            GroupByExpr::Expressions(keys, _) => keys.first().and_then(|key| place_of(key.span())),
            GroupByExpr::All(_) => None,
        };
        for table in &select.from {
            let joined = table.joins.first().and_then(|join| place_of(join.relation.span()));
            self.joins.extend(joined);
            let factors = std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation));
            for factor in factors {
                let TableFactor::Table { name, .. } = factor else { continue };
                if let (Some(table), Some(relation)) = (name_of(name), place_of(name.span())) {
                    self.selects.entry(table).or_insert(SelectPlaces { relation, group_by, joined });
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Verdict {
        let Some(name) = name_of(relation) else {
            return refuse(relation.span(), Refusal::UnknownStream(relation.to_string()));
        };
        let place = place_of(relation.span()).unwrap_or_default();
        self.relations.entry(name).or_insert((place, false));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Verdict {
        match expr {
            Expr::Subquery(query) | Expr::Exists { subquery: query, .. } => refuse(query.span(), Refusal::Subquery),
            Expr::InSubquery { expr, .. } => refuse(expr.span(), Refusal::Subquery),
            Expr::Function(function) => self.check_function(function),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Reader<'_> {
    fn check_function(&self, function: &Function) -> Verdict {
        let Some(name) = name_of(&function.name) else { return ControlFlow::Continue(()) };
        let span = function.name.span();
        if function.over.is_some() {
            return refuse(span, Refusal::Ordered("OVER"));
        }
        if let Some(scalar) = self.functions.scalar_functions().get(&name) {
            return match scalar.signature().volatility {
                Volatility::Immutable => ControlFlow::Continue(()),
                Volatility::Stable | Volatility::Volatile => refuse(span, Refusal::Volatile(name)),
            };
        }
        if self.functions.aggregate_functions().contains_key(&name) {
            let is_distinct = matches!(&function.args, FunctionArguments::List(list)
                if list.duplicate_treatment == Some(DuplicateTreatment::Distinct));
            if is_distinct && name != "count" {
                return refuse(span, Refusal::NotMergeable(format!("{name}(DISTINCT)")));
            }
            if !MERGEABLE.contains(&name.as_str()) {
                return refuse(span, Refusal::NotMergeable(name));
            }
            return ControlFlow::Continue(());
        }
        if self.functions.window_functions().contains_key(&name) {
            return refuse(span, Refusal::Ordered("OVER"));
        }
        if self.functions.higher_order_functions().contains_key(&name) {
            return ControlFlow::Continue(());
        }
        let known = self.functions.scalar_functions().keys().chain(self.functions.aggregate_functions().keys());
        let nearest = nearest(&name, known.map(String::as_str));
        refuse(span, Refusal::UnknownFunction { name, nearest })
    }
}

/// Notes that a WITH reads a table of its own name: that is not itself, but a stream.
fn note_reads_of_own_name(name: &str, body: &SetExpr, relations: &mut BTreeMap<String, (SqlPlace, bool)>) {
    let SetExpr::Select(select) = body else { return };
    for table in &select.from {
        if let TableFactor::Table { name: read, .. } = &table.relation
            && name_of(read).as_deref() == Some(name)
        {
            relations.insert(name.to_owned(), (place_of(read.span()).unwrap_or_default(), true));
        }
    }
}
