"""Numba's code generator, for a processor other than this one, and with object code as the result.

Numba infers types and writes LLVM's assembly for this machine. Here kernels and all that they call
are put into one module for the target's triple, where what several of them call is there once. It
is optimized once as a whole, and becomes one object with functions of C's calling convention.

This module uses Numba's internals, so a build uses exactly the version that pyproject.toml names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import codegen, compiler, cpu
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from npylstm.kernels.jit import OPTIONS

__all__ = ["Machine", "compile_object", "constant_object", "install"]


class Machine(NamedTuple):
    """What LLVM generates code for."""

    triple: str
    cpu: str
    features: str

    def target_machine(self) -> Any:
        """Return LLVM's description."""
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu, features=self.features, opt=3, reloc="pic", codemodel="small"
        )


class _Library(codegen.CPUCodeLibrary):  # type: ignore[misc]
    """Assembly that is optimized when all that it calls is beside it."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_specific(self) -> None:
        pass

    def get_pointer_to_function(self, name: str) -> int:
        return 0  # nothing is executable here

    def emit(self, entry_points: Collection[str], short: Collection[str]) -> bytes:
        """Optimize the module, of which only the entry points are visible; return an object.

        ``short`` are those whose loops are not unrolled: it costs a third of the library's size.
        """
        self._ensure_finalized()
        module = self._final_module
        for value in (*module.functions, *module.global_variables):
            if not value.is_declaration and value.name not in entry_points:
                value.linkage = llvm.Linkage.internal
            if value.name in short:
                value.add_function_attribute("optsize")
        super()._optimize_final_module()
        code: bytes = self._codegen._tm.emit_object(module)
        return code


class _Codegen(codegen.JITCPUCodegen):  # type: ignore[misc]
    """Code for a machine, which may be another than this one."""

    _library_class = _Library

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        super().__init__("npylstm")

    def _init(self, llvm_module: Any) -> None:
        super()._init(llvm_module)  # for this machine, which Numba insists on
        self._tm = self._machine.target_machine()
        self._target_data = self._tm.target_data
        self._data_layout = str(self._target_data)

    def _create_empty_module(self, name: str) -> Any:
        module = super()._create_empty_module(name)
        module.triple = self._machine.triple
        return module

    def _add_module(self, module: Any) -> None:
        pass

    def set_env(self, env_name: str, env: Any) -> None:
        pass  # what Python objects would need


def install(machine: Machine) -> None:
    """Make Numba generate code for a machine, in this process, from now on."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    cpu.CPUContext.post_lowering = lambda self, mod, library: None  # no kernel allocates
    cpu_target.target_context._internal_codegen = _Codegen(machine)


@global_compiler_lock  # type: ignore[untyped-decorator]
def compile_object(sources: Mapping[str, Any], dtype: str, short: Collection[str]) -> bytes:
    """Compile kernels, by the names of their functions, for a dtype; return object code.

    The loops of ``short`` ones are not unrolled.
    """
    flags = compiler.Flags()
    flags.error_model = OPTIONS["error_model"]
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    typing_context, context = cpu_target.typing_context, cpu_target.target_context
    typing_context.refresh()
    context.refresh()
    library = context.codegen().create_library("kernels")
    for symbol, source in sources.items():
        signature = source.signature_for(dtype)
        result = compiler.compile_extra(
            typing_context, context, source.function, signature.args, signature.return_type, flags,
            {},
        )  # fmt: skip
        library.add_linking_library(result.library)
        library.add_ir_module(_entry_point(context, result.fndesc, symbol))
    code: bytes = library.emit(sources, short)
    return code


def _entry_point(context: Any, function: Any, symbol: str) -> Any:
    """Return a function with C's calling convention that calls one with Numba's."""
    module = context.codegen()._create_empty_module("entry_point")
    inner = ir.Function(
        module, context.call_conv.get_function_type(function.restype, function.argtypes),
        function.llvm_func_name,
    )  # fmt: skip
    arguments = [context.get_value_type(kind) for kind in function.argtypes]
    outer = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), symbol)
    builder = ir.IRBuilder(outer.append_basic_block())
    context.call_conv.call_function(builder, inner, function.restype, function.argtypes, outer.args)
    builder.ret_void()
    return module


def constant_object(machine: Machine, symbol: str, content: bytes) -> bytes:
    """Return an object that exports an array of bytes."""
    module = ir.Module()
    module.triple = machine.triple
    kind = ir.ArrayType(ir.IntType(8), len(content))
    variable = ir.GlobalVariable(module, kind, symbol)
    variable.global_constant = True
    variable.initializer = ir.Constant(kind, bytearray(content))
    code: bytes = machine.target_machine().emit_object(llvm.parse_assembly(str(module)))
    return code
