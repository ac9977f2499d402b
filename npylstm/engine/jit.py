"""The whole jit policy, in one decorator, and how a kernel becomes object code.

* No fast-math at all: nan and infinities pass through, sums keep the order in which they
  are written, and so one row gives the same bits as a thousand. Fused multiply-adds are
  asked for one by one with :func:`fma`.
* ``error_model="numpy"``: a division by zero gives inf or nan, as in NumPy.
* Kernels have C's calling convention and touch no Python object: who calls them has released
  the lock of the interpreter, and threads with their own data run side by side.

Numba infers types and writes LLVM's assembly. From there on it would make each function
executable by itself; here all that a kernel calls is first put into one module, which is optimized
once, as a whole, and becomes one object with one function that can be called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import codegen, compiler, cpu, dispatcher, target_extension, typing
from numba.core.compiler_lock import global_compiler_lock
from numba.core.descriptors import TargetDescriptor
from numba.extending import intrinsic

from npylstm.engine.host import CPU_FEATURES, CPU_NAME
from npylstm.engine.linking import ENTRY_POINT

__all__ = ["Source", "compile_object", "entry", "fma", "jit", "kernel", "product_kernel"]


_ERRORS = "numpy"


class Source(NamedTuple):
    """A function to compile, and its signature by what a pointer to numbers is."""

    function: Callable[..., Any]
    signature: Callable[[Any], Any]


def jit(function: Callable[..., Any]) -> Any:
    """Make a function that kernels may call, compiled by the policy above."""
    options = {"nopython": True, "error_model": _ERRORS}
    return _Dispatcher(
        function, targetoptions={**options, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    )


def kernel(function: Callable[..., Any]) -> Source:
    """Make a kernel of a function of a row of a program, parameters, states and tensors."""
    row = types.CPointer(types.int64)
    return Source(function, lambda number: types.void(row, number, number, number))


def product_kernel(function: Callable[..., Any]) -> Source:
    """Make a kernel of a function like :func:`npylstm.kernels.products.multiply`."""
    n = types.int64
    return Source(
        function, lambda number: types.void(number, n, number, n, n, number, n, n, number, n, n)
    )


def entry(function: Callable[..., Any]) -> Source:
    """Make a kernel of a function of integers, one behind the other."""
    return Source(function, lambda integers: types.void(integers))


@global_compiler_lock
def compile_object(source: Source, dtype: str) -> bytes:
    """Compile a kernel for a type of numbers; returns object code."""
    signature = source.signature(types.CPointer(getattr(types, dtype)))
    flags = compiler.Flags()
    flags.error_model = _ERRORS
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    typing_context, context = _TARGET.typing_context, _TARGET.target_context
    typing_context.refresh()
    context.refresh()
    result = compiler.compile_extra(
        typing_context, context, source.function, signature.args, signature.return_type, flags, {}
    )
    context.add_entry_point(result.library, result.fndesc)
    code: bytes = result.library.emit()
    return code


class _Library(codegen.CPUCodeLibrary):
    """Assembly that waits to be optimized until all that it calls has been put beside it."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_specific(self) -> None:
        pass

    def get_pointer_to_function(self, name: str) -> int:
        return 0  # nothing is executable yet

    def emit(self) -> bytes:
        """Optimize the module, of which the entry point alone is seen; returns object code."""
        self._ensure_finalized()
        module = self._final_module
        for function in module.functions:
            if not function.is_declaration and function.name != ENTRY_POINT:
                function.linkage = llvm.Linkage.internal
        super()._optimize_final_module()
        code: bytes = self._codegen._tm.emit_object(module)
        return code


class _Codegen(codegen.CPUCodegen):
    """Code that may lie anywhere in memory, for the processor that the host module tells of."""

    _library_class = _Library

    def _customize_tm_options(self, options: dict[str, Any]) -> None:
        options["cpu"] = CPU_NAME or llvm.get_host_cpu_name()
        options["features"] = self._tm_features
        options["reloc"], options["codemodel"] = "pic", "small"

    def _customize_tm_features(self) -> str:
        if CPU_FEATURES is not None:
            return CPU_FEATURES
        features: str = llvm.get_host_cpu_features().flatten()
        return features

    def _add_module(self, module: Any) -> None:
        pass

    def set_env(self, env_name: str, env: Any) -> None:
        pass  # what Python objects would need


class _Context(cpu.CPUContext):
    def init(self) -> None:
        super().init()
        self._internal_codegen = _Codegen("npylstm")

    def post_lowering(self, mod: Any, library: Any) -> None:
        pass  # no kernel allocates

    def add_entry_point(self, library: Any, function: Any) -> None:
        """Add a function with C's calling convention that calls one with Numba's."""
        module = self.create_module("entry_point")
        inner = ir.Function(
            module, self.call_conv.get_function_type(function.restype, function.argtypes),
            function.llvm_func_name,
        )  # fmt: skip
        arguments = [self.get_value_type(kind) for kind in function.argtypes]
        outer = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), ENTRY_POINT)
        builder = ir.IRBuilder(outer.append_basic_block())
        self.call_conv.call_function(
            builder, inner, function.restype, function.argtypes, outer.args
        )
        builder.ret_void()
        library.add_ir_module(module)


class _Target(TargetDescriptor):
    options = cpu.CPUTargetOptions

    @functools.cached_property
    def typing_context(self) -> typing.Context:
        return typing.Context()

    @functools.cached_property
    def target_context(self) -> _Context:
        return _Context(self.typing_context, _NAME)


_NAME = "npylstm"
_TARGET = _Target(_NAME)


class _Dispatcher(dispatcher.Dispatcher):
    targetdescr = _TARGET


class _Processor(target_extension.CPU):
    """What Numba has for any processor goes for this target, too, compiled by its policy."""


target_extension.target_registry[_NAME] = _Processor
target_extension.dispatcher_registry[_Processor] = _Dispatcher
target_extension.jit_registry[_Processor] = lambda *function, **options: (
    jit(*function) if function else jit
)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, a, a), generate
