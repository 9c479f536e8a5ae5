//! What FXC refuses, read from naga's modules. wgpu compiles with FXC on DX12 if there is no
//! `dxcompiler.dll`, and FXC runs only on Windows.

use std::collections::BTreeSet;
use std::ops::BitOr;

use naga::proc::TypeResolution;
use naga::valid::ModuleInfo;
use naga::{
    AddressSpace, Binding, Block, BuiltIn, Expression, Function, Handle, Module, Statement,
    StorageAccess, TypeInner,
};

/// Refused are assignments to a component of a vector or a column of a matrix by an index that is
/// not constant (X3500, X3550 and X3511).
pub fn check_assignments(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let functions = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
    let entries = module.entry_points.iter().enumerate();
    let entries = entries.map(|(i, entry)| (&entry.function, info.get_entry_point(i)));
    for (function, info) in functions.chain(entries) {
        let mut found = false;
        each_statement(&function.body, &mut |statement| {
            let Statement::Store { pointer, .. } = *statement else { return };
            let mut indexed = false;
            let refused = |ty: &TypeResolution| is_vector_pointer(ty, module);
            let mut at = pointer;
            loop {
                at = match function.expressions[at] {
                    Expression::Access { base, index } => {
                        // An index computed from overrides is a literal here.
                        let literal = matches!(function.expressions[index], Expression::Literal(_));
                        indexed |= !literal && refused(&info[base].ty);
                        base
                    }
                    Expression::AccessIndex { base, .. } => base,
                    _ => break,
                };
            }
            found |= indexed;
        });
        if found {
            return Err(format!(
                "`{}` assigns to a component or column by a variable index: use common/lane.wgsl",
                name(function)
            ));
        }
    }
    Ok(())
}

fn name(function: &Function) -> &str {
    function.name.as_deref().unwrap_or("main")
}

/// Whether a type points to a vector or a matrix in registers.
fn is_vector_pointer(ty: &TypeResolution, module: &Module) -> bool {
    let registers = |space| matches!(space, AddressSpace::Function | AddressSpace::Private);
    match *ty.inner_with(&module.types) {
        TypeInner::Pointer { base, space } => {
            let vector = matches!(
                module.types[base].inner,
                TypeInner::Vector { .. } | TypeInner::Matrix { .. }
            );
            vector && registers(space)
        }
        // A column of a matrix.
        TypeInner::ValuePointer { size: Some(_), space, .. } => registers(space),
        _ => false,
    }
}

fn each_statement(block: &Block, visit: &mut dyn FnMut(&Statement)) {
    for statement in block {
        visit(statement);
        match statement {
            Statement::Block(block) => each_statement(block, visit),
            Statement::If { accept, reject, .. } => {
                each_statement(accept, visit);
                each_statement(reject, visit);
            }
            Statement::Switch { cases, .. } => {
                cases.iter().for_each(|case| each_statement(&case.body, visit));
            }
            Statement::Loop { body, continuing, .. } => {
                each_statement(body, visit);
                each_statement(continuing, visit);
            }
            _ => {}
        }
    }
}

/// Refused are barriers whose execution depends on what may differ between invocations (X3663) or
/// is in memory that invocations write (X4026), `workgroupUniformLoad` included. All calls of a
/// function count as one: an argument that varies in one call counts as varying in all.
pub fn check_barriers(module: &Module) -> Result<(), String> {
    let functions = module.functions.iter().map(|(_, function)| function);
    let functions: Vec<&Function> =
        functions.chain(module.entry_points.iter().map(|entry| &entry.function)).collect();
    let mut flow = Flow { module, facts: Vec::new(), refused: BTreeSet::new() };
    for (number, function) in functions.iter().enumerate() {
        let entry = number >= module.functions.len();
        let varies = |binding: &Option<Binding>| {
            let group = [BuiltIn::WorkGroupId, BuiltIn::NumWorkGroups];
            let same = matches!(binding, Some(Binding::BuiltIn(of)) if group.contains(of));
            entry && !same
        };
        flow.facts.push(Facts {
            arguments: function
                .arguments
                .iter()
                .map(|argument| varies(&argument.binding))
                .collect(),
            locals: vec![false; function.local_variables.len()],
            ..Facts::default()
        });
    }
    // Facts only ever become true, so this ends.
    loop {
        let before = flow.facts.clone();
        for (number, function) in functions.iter().enumerate() {
            let values = flow.values(number, function);
            flow.walk((number, function, &values), &function.body, false);
        }
        if flow.facts == before {
            break;
        }
    }
    match flow.refused.first() {
        None => Ok(()),
        Some(name) => Err(format!("`{name}` has a barrier that may not be reached by all")),
    }
}

/// A function's values that vary between invocations, and whether it has barriers.
#[derive(Clone, Default, PartialEq, Eq)]
struct Facts {
    arguments: Vec<bool>,
    locals: Vec<bool>,
    result: bool,
    barriers: bool,
}

/// Whether invocations part at the end of a block: some leave the loop, or the function.
#[derive(Clone, Copy, Default)]
struct Exits {
    breaks: bool,
    returns: bool,
}

impl BitOr for Exits {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { breaks: self.breaks | other.breaks, returns: self.returns | other.returns }
    }
}

struct Flow<'a> {
    module: &'a Module,
    /// Of each function, then of each entry point.
    facts: Vec<Facts>,
    /// Names of functions with a refused barrier.
    refused: BTreeSet<String>,
}

impl Flow<'_> {
    /// Whether each expression of a function varies.
    fn values(&self, number: usize, function: &Function) -> Vec<bool> {
        use Expression as E;
        let facts = &self.facts[number];
        let mut values: Vec<bool> = Vec::with_capacity(function.expressions.len());
        // Operands come before what uses them.
        for (_, expression) in function.expressions.iter() {
            let of = |operand: Handle<Expression>| values[operand.index()];
            let varies = match *expression {
                E::Literal(_) | E::Constant(_) | E::Override(_) | E::ZeroValue(_) => false,
                E::FunctionArgument(i) => facts.arguments[i as usize],
                E::LocalVariable(local) => facts.locals[local.index()],
                E::GlobalVariable(global) => match self.module.global_variables[global].space {
                    AddressSpace::Uniform => false,
                    AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
                    _ => true,
                },
                E::CallResult(function) => self.facts[function.index()].result,
                E::Load { pointer: of_one }
                | E::AccessIndex { base: of_one, .. }
                | E::Splat { value: of_one, .. }
                | E::Swizzle { vector: of_one, .. }
                | E::Unary { expr: of_one, .. }
                | E::As { expr: of_one, .. }
                | E::Relational { argument: of_one, .. }
                | E::ArrayLength(of_one) => of(of_one),
                E::Access { base: left, index: right } | E::Binary { left, right, .. } => {
                    of(left) || of(right)
                }
                E::Select { condition, accept, reject } => {
                    of(condition) || of(accept) || of(reject)
                }
                E::Compose { ref components, .. } => components.iter().any(|part| of(*part)),
                E::Math { arg, arg1, arg2, arg3, .. } => {
                    [Some(arg), arg1, arg2, arg3].into_iter().flatten().any(of)
                }
                // Among them results of atomic operations and loads from workgroup memory.
                _ => true,
            };
            values.push(varies);
        }
        values
    }

    /// Follows a block that is executed under a condition that varies, or not.
    fn walk(&mut self, of: (usize, &Function, &[bool]), block: &Block, mut varying: bool) -> Exits {
        use Statement as S;
        let (number, function, values) = of;
        let mut exits = Exits::default();
        for statement in block {
            let next = match statement {
                S::Block(block) => self.walk(of, block, varying),
                S::If { condition, accept, reject } => {
                    let varying = varying || values[condition.index()];
                    self.walk(of, accept, varying) | self.walk(of, reject, varying)
                }
                S::Switch { selector, cases } => {
                    let varying = varying || values[selector.index()];
                    let walked = cases.iter().map(|case| self.walk(of, &case.body, varying));
                    walked.fold(Exits::default(), Exits::bitor)
                }
                S::Loop { body, continuing, break_if } => {
                    let condition = break_if.is_some_and(|condition| values[condition.index()]);
                    let mut inside = self.walk(of, body, varying);
                    inside = inside | self.walk(of, continuing, varying);
                    if inside.breaks || inside.returns || condition {
                        // Later iterations are not executed by all, nor is what they store.
                        self.walk(of, body, true);
                        self.walk(of, continuing, true);
                    }
                    Exits { breaks: false, returns: inside.returns }
                }
                S::Break | S::Continue => Exits { breaks: varying, returns: false },
                S::Return { value } => {
                    let value = value.is_some_and(|value| values[value.index()]);
                    self.facts[number].result |= varying || value;
                    Exits { breaks: false, returns: varying }
                }
                S::Store { pointer, value } => {
                    let varies = varying || values[pointer.index()] || values[value.index()];
                    self.store(number, function, *pointer, varies);
                    Exits::default()
                }
                S::Call { function: called, arguments, .. } => {
                    for (i, argument) in arguments.iter().enumerate() {
                        // A variable whose address is passed counts as varying.
                        self.store(number, function, *argument, true);
                        self.facts[called.index()].arguments[i] |= values[argument.index()];
                    }
                    if self.facts[called.index()].barriers {
                        self.barrier(number, function, varying);
                    }
                    Exits::default()
                }
                S::ControlBarrier(_) | S::WorkGroupUniformLoad { .. } => {
                    self.barrier(number, function, varying);
                    Exits::default()
                }
                _ => Exits::default(),
            };
            varying |= next.breaks || next.returns;
            exits = exits | next;
        }
        exits
    }

    fn barrier(&mut self, number: usize, function: &Function, varying: bool) {
        self.facts[number].barriers = true;
        if varying {
            self.refused.insert(name(function).to_owned());
        }
    }

    /// Marks the local variable that a pointer leads to, if it is one.
    fn store(
        &mut self,
        number: usize,
        function: &Function,
        mut pointer: Handle<Expression>,
        varies: bool,
    ) {
        loop {
            match function.expressions[pointer] {
                Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
                    pointer = base;
                }
                Expression::LocalVariable(local) => {
                    self.facts[number].locals[local.index()] |= varies;
                    return;
                }
                _ => return,
            }
        }
    }
}
