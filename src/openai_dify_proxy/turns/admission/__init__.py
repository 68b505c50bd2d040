"""Admission: how many turns run at once in each Dify, and who is next.

A Dify API process serves ten connections. Beyond them it answers nothing, stop calls included, so turns wait here for a
slot. ``AutoLimit``, ``FairQueue``, ``Promises`` and ``LeaseTable`` are pure; ``Gate`` applies them to one Dify.
"""
